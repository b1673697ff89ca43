"""llama2.c's tokenizer.bin (karpathy/llama2.c, export of tokenizer.py): SentencePiece's pieces and scores, in order of id.

    int32 length of the longest piece, then for each piece    float32 score · int32 length · the piece in UTF-8, spaces plain

The ids are Llama's: 0 is unknown, 1 begins and 2 ends a document (their pieces stand between newlines), 3 … 258 are the bytes.
"""

import struct
from pathlib import Path

from refllm.tokenizer.sentence_piece import SentencePieceBPE, merges_by_score
from refllm.tokenizer.tokenizer import AddedToken, Tokenizer

FIRST_BYTE, FIRST_PIECE = 3, 259


def load(path: Path) -> Tokenizer:
    """Open a tokenizer.bin. Raises ValueError for a file that is damaged or of another kind."""
    data = path.read_bytes()
    texts: list[str] = []
    scores: dict[int, float] = {}
    try:
        (longest,) = struct.unpack_from("<i", data)
        position = 4
        while position < len(data):
            score, length = struct.unpack_from("<fi", data, position)
            piece = data[position + 8 : position + 8 + length]
            if not 0 <= length <= longest or len(piece) < length:
                raise ValueError(
                    f"piece {len(texts)} has {len(piece)} of {length} bytes, where the longest is said to have {longest}"
                )
            scores[len(texts)] = score
            texts.append(piece.decode("utf-8"))
            position += 8 + length
        if texts[FIRST_BYTE:FIRST_PIECE] != [f"<0x{byte:02X}>" for byte in range(256)]:
            raise ValueError(f"the pieces {FIRST_BYTE} to {FIRST_PIECE - 1} are not the 256 bytes")
    except (struct.error, ValueError) as error:
        raise ValueError(
            f"{path} is not a whole tokenizer.bin of llama2.c ({error}); it may be truncated. Copy it again."
        ) from None
    pieces = dict(enumerate(texts[FIRST_PIECE:], FIRST_PIECE))
    model = SentencePieceBPE(pieces, merges_by_score(pieces, scores), byte_ids=range(FIRST_BYTE, FIRST_PIECE), unknown=0)
    special = [AddedToken(id, text.strip("\n"), special=True) for id, text in enumerate(texts[:FIRST_BYTE])]
    return Tokenizer(model, special, bos=1, eos=2)
