"""SentencePiece's tokenizer.model, a protobuf message (sentencepiece_model.proto of version 0.2), read without the package."""

import struct
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from refllm.tokenizer.character_map import CharacterMap
from refllm.tokenizer.model import Model
from refllm.tokenizer.normalizers import Normalizer
from refllm.tokenizer.sentence_piece import ESCAPED_SPACE, Scheme, SentencePieceBPE, merges_by_score
from refllm.tokenizer.sentence_piece_normalizer import SentencePieceNormalizer
from refllm.tokenizer.tokenizer import AddedToken, Tokenizer
from refllm.tokenizer.unigram import UNKNOWN_PENALTY, Unigram, float32

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)  # types of pieces
ALGORITHMS = {1: "Unigram", 2: "BPE", 3: "Word", 4: "Char"}
OF_TEXT = (NORMAL, USER_DEFINED, UNUSED)
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5  # ways to write a field

Message = dict[int, list]  # field number -> its values: int for numbers written as varint, else bytes


class Piece(NamedTuple):
    """An entry of the vocabulary, spaces as U+2581."""

    text: str
    score: float
    type: int


def load(path: Path) -> Tokenizer:
    """Open a tokenizer.model. Raises ValueError for a file that is damaged or of a kind not known."""
    try:
        return _tokenizer(read_message(path.read_bytes()))
    except (IndexError, KeyError, TypeError, AttributeError, UnicodeDecodeError, struct.error) as error:
        raise ValueError(f"{path} is not a whole tokenizer.model ({error}); it may be truncated. Copy it again.") from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _tokenizer(file: Message) -> Tokenizer:
    trainer, normalizer = read_message(_last(file, 2, b"")), read_message(_last(file, 3, b""))
    pieces = [_piece(read_message(entry)) for entry in file[1]]
    algorithm = ALGORITHMS.get(_last(trainer, 3, 1), "one unheard of")
    _check(algorithm, normalizer, read_message(_last(file, 5, b"")), pieces)
    change = _normalizer(trainer, normalizer, pieces)
    steps: tuple[SentencePieceNormalizer, ...] = (change,)
    byte_ids = {int(piece.text[3:5], 16): id for id, piece in enumerate(pieces) if piece.type == BYTE}
    byte_ids_in_order = [byte_ids[byte] for byte in sorted(byte_ids)] if _last(trainer, 35, 0) else []
    if algorithm == "Unigram":
        space = " " if _last(normalizer, 3, 1) or _last(normalizer, 4, 1) else ""
        model: Model = _unigram(pieces, byte_ids_in_order, space)
    else:
        plain = not (change.characters.rules or change.single_spaces or change.behind)
        model = _bpe(pieces, byte_ids_in_order, change.before, "every" if plain else "unspaced")
        steps = () if plain else steps
    special = [AddedToken(id, text, special=True) for id, (text, _, kind) in enumerate(pieces) if kind in (UNKNOWN, CONTROL)]
    ids = {token.id for token in special}
    bos, eos = (id if id in ids else None for id in (_last(trainer, 41, 1), _last(trainer, 42, 2)))
    return Tokenizer(model, special, bos, eos, Normalizer(steps) if steps else None)


def _piece(entry: Message) -> Piece:
    (score,) = struct.unpack("<f", _last(entry, 2, bytes(4)))
    return Piece(_last(entry, 1, b"").decode("utf-8"), score, _last(entry, 3, NORMAL))


def _check(algorithm: str, normalizer: Message, denormalizer: Message, pieces: list[Piece]) -> None:
    """Raise ValueError for a part that is not read here, and for pieces that sentencepiece refuses."""
    of_bpe = pieces if algorithm == "BPE" else []
    for what, found, known in (
        ("algorithm", algorithm, ("BPE", "Unigram")),
        ("escaping of spaces", bool(_last(normalizer, 5, 1)), (True,)),
        ("character map for decoding", bool(_last(denormalizer, 2, b"")), (False,)),
        ("unused pieces", any(piece.type == UNUSED for piece in of_bpe), (False,)),
        ("pieces with a plain space", any(" " in piece.text for piece in of_bpe), (False,)),
    ):
        if found not in known:
            raise ValueError(f"its {what} is {found!r}; what is read here is {' or '.join(map(repr, known))}.")
    if not any(piece.type == UNKNOWN for piece in pieces):
        raise ValueError("the vocabulary has no piece for what is unknown; it needs one.")
    texts = [piece.text for piece in pieces if piece.type in OF_TEXT]
    if len(set(texts)) < len(texts):
        raise ValueError("two pieces of the vocabulary are the same.")


def _normalizer(trainer: Message, normalizer: Message, pieces: Iterable[Piece]) -> SentencePieceNormalizer:
    kept = [piece.text for piece in pieces if piece.type == USER_DEFINED]
    space, as_suffix = " " if _last(normalizer, 3, 1) else "", _last(trainer, 24, 0)
    return SentencePieceNormalizer(
        CharacterMap.read(_last(normalizer, 2, b""), kept),
        single_spaces=bool(_last(normalizer, 4, 1)),
        before="" if as_suffix else space,
        behind=space if as_suffix else "",
    )


def _bpe(pieces: list[Piece], byte_ids: list[int], prefix: str, scheme: Scheme) -> SentencePieceBPE:
    texts = _texts(pieces)
    merges = merges_by_score(texts, {id: pieces[id].score for id in texts})
    user_defined = [id for id in texts if pieces[id].type == USER_DEFINED]
    return SentencePieceBPE(texts, merges, byte_ids, user_defined, prefix, _unknown(pieces), scheme)


def _unigram(pieces: list[Piece], byte_ids: list[int], prefix: str) -> Unigram:
    """A piece that the user defined has 0.1 for each byte but the first, and so wins over what the training found.

    One that holds a plain space is never found, for the text holds none: all have become U+2581.
    """
    normal = {id: piece.score for id, piece in enumerate(pieces) if piece.type == NORMAL}
    own = {id: 0.1 * (len(text.encode()) - 1) for id, (text, _, kind) in enumerate(pieces) if kind == USER_DEFINED}
    scores = {id: float32(score) for id, score in (normal | own).items() if " " not in pieces[id].text}
    unknown_score = float32(min(normal.values(), default=0.0) - UNKNOWN_PENALTY)
    return Unigram(_texts(pieces), scores, _unknown(pieces), unknown_score, byte_ids, prefix)


def _texts(pieces: list[Piece]) -> dict[int, str]:
    return {id: text.replace(ESCAPED_SPACE, " ") for id, (text, _, kind) in enumerate(pieces) if kind in OF_TEXT}


def _unknown(pieces: list[Piece]) -> int:
    return next(id for id, piece in enumerate(pieces) if piece.type == UNKNOWN)


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
