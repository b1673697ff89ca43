"""SentencePiece's BPE in a tokenizer.json, as for Llama 2: spaces as U+2581, bytes as <0x00> … <0xFF>."""

from collections.abc import Iterable, Mapping
from typing import Any

from refllm.tokenizer.byte_pair import Merge
from refllm.tokenizer.formats.hugging_face_parts import bpe, read_merges, read_vocabulary, require
from refllm.tokenizer.sentence_piece import ESCAPED_SPACE, SentencePieceBPE
from refllm.tokenizer.sentence_piece_arrays import CHARACTERS

BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
PREPEND = {"type": "Prepend", "prepend": ESCAPED_SPACE}
ESCAPE = {"type": "Replace", "pattern": {"String": " "}, "content": ESCAPED_SPACE}
UNESCAPE = {"type": "Replace", "pattern": {"String": ESCAPED_SPACE}, "content": " "}
STRIP = {"type": "Strip", "content": " ", "start": 1, "stop": 0}


def describe(model: SentencePieceBPE, added: Iterable[tuple[str, int]]) -> dict[str, Any]:
    """The parts of a tokenizer.json. added: (spelling, id) of the added tokens, which the vocabulary lists too.

    Raises ValueError for what the file cannot say: pieces of characters that are no pieces, pieces that the user defined.
    """
    if model.user_defined or any(max(pair) >= CHARACTERS for pair in model.merges):
        raise ValueError("a tokenizer.json cannot hold this model: it has user-defined pieces, or characters that are no piece.")
    spelling = {id: piece.replace(" ", ESCAPED_SPACE) for id, piece in model.pieces.items()}
    spelling |= dict(zip(model.byte_ids, BYTES, strict=False)) | {id: content for content, id in added}
    merges = [f"{spelling[left]} {spelling[right]}" for left, right in sorted(model.merges, key=lambda pair: order(model, pair))]
    normalizers = [PREPEND, ESCAPE] if model.prefix else [ESCAPE]
    decoders = [UNESCAPE, {"type": "ByteFallback"}, {"type": "Fuse"}, *([STRIP] if model.prefix else [])]
    return {
        "normalizer": {"type": "Sequence", "normalizers": normalizers},
        "pre_tokenizer": None,
        "decoder": {"type": "Sequence", "decoders": decoders},
        "model": bpe(
            {spelling[id]: id for id in sorted(spelling)},
            merges,
            unk_token=None if model.unknown is None else spelling[model.unknown],
            fuse_unk=True,
            byte_fallback=bool(model.byte_ids),
        ),
    }


def order(model: SentencePieceBPE, pair: tuple[int, int]) -> tuple[int, int, int]:
    """Where a pair stands among the merges: of those that join to one piece, transformers puts the longest left part first."""
    left, right = (len(model.pieces[id]) for id in pair)
    return model.merges[pair].rank, -left, -right


def read(document: Mapping[str, Any], added: Mapping[str, int]) -> SentencePieceBPE:
    """The model of a tokenizer.json. added: the ids of the added tokens. Raises ValueError for a part that is not known."""
    model = document["model"]
    for field in ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "ignore_merges"):
        require(f"model.{field}", model.get(field) or None, None)
    require("pre_tokenizer", document.get("pre_tokenizer"), None)
    normalizers = document["normalizer"].get("normalizers", [document["normalizer"]])
    require("normalizer", normalizers, [PREPEND, ESCAPE], [ESCAPE])
    spelled = read_vocabulary(model, added)
    byte_ids = [spelled.pop(name) for name in BYTES if name in spelled] if model["byte_fallback"] else []
    pieces = {id: spelling.replace(ESCAPED_SPACE, " ") for spelling, id in spelled.items()}
    ids = {piece: id for id, piece in pieces.items()}
    merges: dict[tuple[int, int], Merge] = {}
    for rank, (left, right) in enumerate(read_merges(model)):
        joined = pieces.get(left, "") + pieces.get(right, "")
        if joined not in ids:
            raise ValueError(f"merge {rank} makes {joined!r}, which is not in the vocabulary.")
        merges[left, right] = Merge(rank, ids[joined])
    require("model.fuse_unk", model.get("fuse_unk", False), True)
    unknown = model.get("unk_token")
    return SentencePieceBPE(
        pieces,
        merges,
        byte_ids,
        prefix=" " if PREPEND in normalizers else "",
        unknown=None if unknown is None else (spelled | dict(added))[unknown],
    )
