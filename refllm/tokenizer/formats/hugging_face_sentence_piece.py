"""SentencePiece's BPE in a tokenizer.json, as for Llama 2, Mistral and Gemma: spaces as U+2581, bytes as <0x00> … <0xFF>.

The space before a text is put there by the normalizer Prepend, before every stretch of text between added tokens, or by the
pre-tokenizer Metaspace, before those that begin with no space: all of them ("always"), or if it is the text's first ("first").
A Metaspace may also split the text before every space; then no merge that would join over one is ever used.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from refllm.tokenizer.byte_pair import Merge
from refllm.tokenizer.formats.hugging_face_parts import bpe, read_merges, read_vocabulary, require
from refllm.tokenizer.sentence_piece import ESCAPED_SPACE, Scheme, SentencePieceBPE
from refllm.tokenizer.sentence_piece_arrays import CHARACTERS

BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
PREPEND = {"type": "Prepend", "prepend": ESCAPED_SPACE}
ESCAPE = {"type": "Replace", "pattern": {"String": " "}, "content": ESCAPED_SPACE}
UNESCAPE = {"type": "Replace", "pattern": {"String": ESCAPED_SPACE}, "content": " "}
STRIP = {"type": "Strip", "content": " ", "start": 1, "stop": 0}
IDLE_SPLIT = {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False}  # Gemma's
SCHEMES: dict[str, Scheme] = {"always": "unspaced", "first": "first"}  # Metaspace's word for it -> ours


def describe(model: SentencePieceBPE, added: Iterable[tuple[str, int]]) -> dict[str, Any]:
    """The parts of a tokenizer.json. added: (spelling, id) of the added tokens, which the vocabulary lists too.

    Raises ValueError for what the file cannot say: pieces of characters that are no pieces, pieces that the user defined.
    """
    if model.user_defined:
        first = model.pieces[model.user_defined[0]]
        raise ValueError(
            f"a tokenizer.json cannot hold this model: its user-defined pieces, such as {first!r}, are found in a text with its "
            "space before it, where a tokenizer.json finds added tokens first and puts a space behind each."
        )
    if raw := next((merge.id for pair, merge in model.merges.items() if max(pair) >= CHARACTERS), None):
        raise ValueError(
            f"a tokenizer.json cannot hold this model: the piece {model.pieces[raw]!r} has a character that is no piece."
        )
    spelling = {id: piece.replace(" ", ESCAPED_SPACE) for id, piece in model.pieces.items()}
    spelling |= dict(zip(model.byte_ids, BYTES, strict=False)) | {id: content for content, id in added}
    merges = [f"{spelling[left]} {spelling[right]}" for left, right in sorted(model.merges, key=lambda pair: order(model, pair))]
    decoders = [UNESCAPE, {"type": "ByteFallback"}, {"type": "Fuse"}, *([STRIP] if model.prefix else [])]
    return {
        **_spaces(model),
        "decoder": {"type": "Sequence", "decoders": decoders},
        "model": bpe(
            {spelling[id]: id for id in sorted(spelling)},
            merges,
            unk_token=None if model.unknown is None else spelling[model.unknown],
            fuse_unk=True,
            byte_fallback=bool(model.byte_ids),
        ),
    }


def _spaces(model: SentencePieceBPE) -> dict[str, Any]:
    """The parts that write spaces as U+2581 and put one before a text."""
    if model.prefix and model.scheme != "every":
        scheme = next(theirs for theirs, ours in SCHEMES.items() if ours == model.scheme)
        metaspace = {"type": "Metaspace", "replacement": ESCAPED_SPACE, "prepend_scheme": scheme, "split": False}
        return {"normalizer": None, "pre_tokenizer": metaspace}
    normalizers = [PREPEND, ESCAPE] if model.prefix else [ESCAPE]
    return {"normalizer": {"type": "Sequence", "normalizers": normalizers}, "pre_tokenizer": None}


def order(model: SentencePieceBPE, pair: tuple[int, int]) -> tuple[int, int, int]:
    """Where a pair stands among the merges: of those that join to one piece, transformers puts the longest left part first."""
    left, right = (len(model.pieces[id]) for id in pair)
    return model.merges[pair].rank, -left, -right


def read(document: Mapping[str, Any], added: Mapping[str, int]) -> SentencePieceBPE:
    """The model of a tokenizer.json. added: the ids of the added tokens. Raises ValueError for a part that is not known."""
    model = document["model"]
    for field in ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "ignore_merges"):
        require(f"model.{field}", model.get(field) or None, None)
    prefix, scheme, splits = read_spaces(document.get("normalizer"), document.get("pre_tokenizer"))
    spelled = read_vocabulary(model, added)
    byte_ids = [spelled.pop(name) for name in BYTES if name in spelled] if model.get("byte_fallback") else []
    if plain := next((spelling for spelling in spelled if " " in spelling), None):
        raise ValueError(f"the token {plain!r} has a space, which this normalizer leaves in no text; U+2581 stands for it.")
    if ESCAPED_SPACE not in spelled:
        raise ValueError("the vocabulary has no token for the space, U+2581.")
    if not byte_ids:
        require("model.fuse_unk", model.get("fuse_unk", False), True)
    pieces = {id: spelling.replace(ESCAPED_SPACE, " ") for spelling, id in spelled.items()}
    merges = _merges(model, pieces)
    if splits:
        merges = {pair: merge for pair, merge in merges.items() if " " not in pieces[merge.id][1:]}
    unknown = model.get("unk_token")
    return SentencePieceBPE(
        pieces,
        merges,
        byte_ids,
        prefix=prefix,
        unknown=None if unknown is None else (spelled | dict(added))[unknown],
        scheme=scheme,
    )


def _merges(model: Mapping[str, Any], pieces: Mapping[int, str]) -> dict[tuple[int, int], Merge]:
    ids = {piece: id for id, piece in pieces.items()}
    merges: dict[tuple[int, int], Merge] = {}
    for rank, pair in enumerate(read_merges(model)):
        left, right = (pieces.get(id) for id in pair)
        if left is None or right is None or left + right not in ids:
            made = " and ".join(repr(piece) for piece in (left, right) if piece is not None)
            raise ValueError(
                f"merge {rank}, of {made or 'added tokens'}, makes nothing that is in the vocabulary beside the added tokens."
            )
        merges[pair] = Merge(rank, ids[left + right])
    return merges


def read_spaces(normalizer: Mapping[str, Any] | None, pre_tokenizer: Mapping[str, Any] | None) -> tuple[str, Scheme, bool]:
    """What is put before a text, before which stretches of it, and whether the text is split before every space.

    Raises ValueError for parts that do anything else, or do not write spaces as U+2581.
    """
    parts = [] if normalizer is None else normalizer.get("normalizers", [normalizer])
    require("normalizer", parts, [PREPEND, ESCAPE], [ESCAPE], [])
    prefix: str = " " if PREPEND in parts else ""
    if pre_tokenizer is None or (pre_tokenizer == IDLE_SPLIT and parts):  # no space is left to split at
        require("normalizer", parts, [PREPEND, ESCAPE], [ESCAPE])
        return prefix, "every", False
    require("pre_tokenizer.type", pre_tokenizer.get("type"), "Metaspace")
    require("pre_tokenizer.replacement", pre_tokenizer.get("replacement", ESCAPED_SPACE), ESCAPED_SPACE)
    before_0_20 = "always" if pre_tokenizer.get("add_prefix_space", True) else "never"
    scheme = pre_tokenizer.get("prepend_scheme", before_0_20)
    require("pre_tokenizer.prepend_scheme", scheme, "always", "first", "never")
    splits = pre_tokenizer.get("split", True)
    require("pre_tokenizer.split", splits, True, False)
    if prefix or scheme == "never":  # a stretch that Prepend was at begins with a space already
        return prefix, "every", splits
    return " ", SCHEMES[scheme], splits
