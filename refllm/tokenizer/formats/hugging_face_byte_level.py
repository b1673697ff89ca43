"""Byte-level BPE in a tokenizer.json: tokens in GPT-2's printable characters, words by the part ByteLevel or by a pattern."""

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from refllm.tokenizer.byte_level import to_bytes, to_characters
from refllm.tokenizer.byte_level_bpe import ByteLevelBPE
from refllm.tokenizer.formats.hugging_face_parts import bpe, read_merges, read_vocabulary, require
from refllm.tokenizer.words.patterns import CL100K, GPT2

BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
# {1,3}+ is possessive in tiktoken, but a repeated group in tokenizers; at the end of an alternative it needs no plus
REPEATED = re.compile(r"\{[\d,]+\}\+")
SPELLINGS = {CL100K: CL100K.replace("{1,3}+", "{1,3}")}


def describe(model: ByteLevelBPE, added: Iterable[tuple[str, int]]) -> dict[str, Any]:
    """The parts of a tokenizer.json. added: (spelling, id) of the added tokens, which the vocabulary lists too.

    Raises ValueError for a pattern that means something else there.
    """
    spelling = {id: to_characters(token) for id, token in model.vocabulary.items()}
    vocabulary = {spelling[id]: id for id in sorted(spelling)} | dict(added)
    merges = [f"{spelling[left]} {spelling[right]}" for left, right in model.pairs()]
    pattern = SPELLINGS.get(model.pattern, model.pattern)
    if repeated := REPEATED.search(pattern):
        raise ValueError(f"the pattern {pattern!r} has {repeated.group()}, which means something else in a tokenizer.json.")
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    sequence = {"type": "Sequence", "pretokenizers": [split, BYTE_LEVEL | {"use_regex": False}]}
    return {
        "normalizer": None,
        "pre_tokenizer": BYTE_LEVEL if model.pattern == GPT2 else sequence,
        "decoder": BYTE_LEVEL,
        "model": bpe(vocabulary, merges, ignore_merges=model.whole_words),
    }


def read(document: Mapping[str, Any], added: Collection[str]) -> ByteLevelBPE:
    """The model of a tokenizer.json. Raises ValueError for a part that is not known."""
    model = document["model"]
    require("normalizer", document.get("normalizer"), None)
    require("decoder.type", (document.get("decoder") or {}).get("type"), "ByteLevel")
    for field in ("dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback"):
        require(f"model.{field}", model.get(field) or None, None)
    return build(model, added, read_pattern(document["pre_tokenizer"]))


def read_pattern(part: Mapping[str, Any]) -> str:
    """The pattern that a pre_tokenizer cuts by: ByteLevel's own, which is GPT-2's, or that of one Split before it."""
    parts = part["pretokenizers"] if part.get("type") == "Sequence" else [part]
    require("pre_tokenizer.type", parts[-1].get("type"), "ByteLevel")
    require("pre_tokenizer.add_prefix_space", parts[-1].get("add_prefix_space", True), False)
    require("pre_tokenizer.use_regex", parts[-1].get("use_regex", True), len(parts) == 1)
    if len(parts) == 1:
        return GPT2
    require("the number of parts in pre_tokenizer", len(parts), 1, 2)
    require("pre_tokenizer.type", parts[0].get("type"), "Split")
    require("pre_tokenizer.behavior", parts[0]["behavior"], "Isolated")
    require("pre_tokenizer.invert", parts[0].get("invert", False), False)
    pattern = parts[0]["pattern"]["Regex"]
    if repeated := REPEATED.search(pattern):
        raise ValueError(f"the pattern {pattern!r} has {repeated.group()}, which is not read here.")
    return next((known for known, spelling in SPELLINGS.items() if spelling == pattern), pattern)


def build(model: Mapping[str, Any], added: Collection[str], pattern: str = GPT2) -> ByteLevelBPE:
    """The model of a vocabulary and merges in GPT-2's spelling."""
    vocabulary = {id: to_bytes(spelling) for spelling, id in read_vocabulary(model, added).items()}
    return ByteLevelBPE.from_merges(vocabulary, read_merges(model), pattern, bool(model.get("ignore_merges")))
