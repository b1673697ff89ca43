"""SentencePiece's tokenizer.model, a protobuf message (sentencepiece_model.proto of version 0.2), read without the package."""

import struct
from pathlib import Path

from refllm.tokenizer.sentence_piece import ESCAPED_SPACE, SentencePieceBPE, merges_by_score
from refllm.tokenizer.tokenizer import AddedToken, Tokenizer

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)  # types of pieces
ALGORITHMS = {1: "Unigram", 2: "BPE", 3: "Word", 4: "Char"}
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5  # ways to write a field

Message = dict[int, list]  # field number -> its values: int for numbers written as varint, else bytes


def load(path: Path) -> Tokenizer:
    """Open a tokenizer.model. Raises ValueError for a file that is damaged or of a kind not known."""
    try:
        return _tokenizer(read_message(path.read_bytes()))
    except (IndexError, KeyError, TypeError, AttributeError, UnicodeDecodeError, struct.error) as error:
        raise ValueError(f"{path} is not a whole tokenizer.model ({error}); it may be truncated. Copy it again.") from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _tokenizer(model: Message) -> Tokenizer:
    trainer, normalizer = read_message(_last(model, 2, b"")), read_message(_last(model, 3, b""))
    entries = [read_message(entry) for entry in model[1]]
    texts = [_last(entry, 1, b"").decode("utf-8") for entry in entries]
    types = [_last(entry, 3, NORMAL) for entry in entries]
    for what, found, known in (
        ("algorithm", ALGORITHMS.get(_last(trainer, 3, 1)), "BPE"),
        ("character map", bool(_last(normalizer, 2, b"")), False),
        ("removal of extra spaces", bool(_last(normalizer, 4, 1)), False),
        ("escaping of spaces", bool(_last(normalizer, 5, 1)), True),
        ("space as suffix", bool(_last(trainer, 24, 0)), False),
        ("unused pieces", UNUSED in types, False),
    ):
        if found != known:
            raise ValueError(f"its {what} is {found!r}; what is read here is {known!r}.")

    pieces = {id: text.replace(ESCAPED_SPACE, " ") for id, text in enumerate(texts) if types[id] in (NORMAL, USER_DEFINED)}
    scores = {id: struct.unpack("<f", _last(entry, 2, bytes(4)))[0] for id, entry in enumerate(entries)}
    byte_ids = {int(text[3:5], 16): id for id, text in enumerate(texts) if types[id] == BYTE}
    bpe = SentencePieceBPE(
        pieces,
        merges_by_score(pieces, scores),
        byte_ids=[byte_ids[byte] for byte in sorted(byte_ids)] if _last(trainer, 35, 0) else (),
        user_defined=[id for id in pieces if types[id] == USER_DEFINED],
        prefix=" " if _last(normalizer, 3, 1) else "",
        unknown=types.index(UNKNOWN) if UNKNOWN in types else None,
    )
    special = [AddedToken(id, text, special=True) for id, text in enumerate(texts) if types[id] in (UNKNOWN, CONTROL)]
    ids = {token.id for token in special}
    bos, eos = (id if id in ids else None for id in (_last(trainer, 41, 1), _last(trainer, 42, 2)))
    return Tokenizer(bpe, special, bos, eos)


def read_message(data: bytes) -> Message:
    """The fields of a protobuf message. Raises IndexError where it ends too soon."""
    message: Message = {}
    position = 0

    def varint() -> int:
        nonlocal position
        value = shift = 0
        while True:
            byte = data[position]
            position += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while position < len(data):
        key = varint()
        value: int | bytes
        if key & 7 == VARINT:
            value = varint()
        else:
            size = {FIXED64: 8, FIXED32: 4}[key & 7] if key & 7 != BYTES else varint()
            if position + size > len(data):
                raise IndexError("it ends within a field")
            value = data[position : position + size]
            position += size
        message.setdefault(key >> 3, []).append(value)
    return message


def _last(message: Message, field: int, default):
    """The value of a field that is given at most once."""
    return message[field][-1] if field in message else default
