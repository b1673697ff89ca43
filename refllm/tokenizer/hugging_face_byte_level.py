"""Byte-level BPE in a tokenizer.json: tokens in GPT-2's printable characters, words by the part named ByteLevel."""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from refllm.tokenizer.byte_level import to_bytes, to_characters
from refllm.tokenizer.byte_level_bpe import ByteLevelBPE
from refllm.tokenizer.hugging_face_parts import bpe, read_merges, read_vocabulary, require

BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}


def describe(model: ByteLevelBPE, added: Iterable[tuple[str, int]]) -> dict[str, Any]:
    """The parts of a tokenizer.json. added: (spelling, id) of the added tokens, which the vocabulary lists too."""
    spelling = {id: to_characters(token) for id, token in model.vocabulary.items()}
    vocabulary = {spelling[id]: id for id in sorted(spelling)} | dict(added)
    merges = [f"{spelling[left]} {spelling[right]}" for left, right in model.pairs()]
    return {
        "normalizer": None,
        "pre_tokenizer": BYTE_LEVEL,
        "decoder": BYTE_LEVEL,
        "model": bpe(vocabulary, merges, ignore_merges=model.whole_words),
    }


def read(document: Mapping[str, Any], added: Collection[str]) -> ByteLevelBPE:
    """The model of a tokenizer.json. Raises ValueError for a part that is not known."""
    model = document["model"]
    require("normalizer", document.get("normalizer"), None)
    for part in ("pre_tokenizer", "decoder"):
        require(f"{part}.type", (document.get(part) or {}).get("type"), "ByteLevel")
    require("pre_tokenizer.use_regex", document["pre_tokenizer"].get("use_regex", True), True)
    require("pre_tokenizer.add_prefix_space", document["pre_tokenizer"].get("add_prefix_space", True), False)
    for field in ("dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback"):
        require(f"model.{field}", model.get(field) or None, None)
    return build(model, added)


def build(model: Mapping[str, Any], added: Collection[str]) -> ByteLevelBPE:
    """The model of a vocabulary and merges in GPT-2's spelling."""
    vocabulary = {id: to_bytes(spelling) for spelling, id in read_vocabulary(model, added).items()}
    return ByteLevelBPE.from_merges(vocabulary, read_merges(model), bool(model.get("ignore_merges")))
