"""Byte-level BPE in a tokenizer.json: tokens in GPT-2's printable characters, words by the part ByteLevel or by patterns."""

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from refllm.tokenizer.byte_level import to_bytes, to_characters
from refllm.tokenizer.byte_level_bpe import ByteLevelBPE
from refllm.tokenizer.formats.hugging_face_normalizers import describe_search, read_search
from refllm.tokenizer.formats.hugging_face_parts import bpe, read_merges, read_vocabulary, require
from refllm.tokenizer.pre_split import BEHAVIORS, WORDS_AND_SIGNS, PreSplit, Split
from refllm.tokenizer.words.patterns import CL100K, GPT2

BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
# {1,3}+ is possessive in tiktoken, but a repeated group in tokenizers; at the end of an alternative it needs no plus
REPEATED = re.compile(r"\{[\d,]+\}\+")
SPELLINGS = {CL100K: CL100K.replace("{1,3}+", "{1,3}")}

PUNCTUATION = r"[!-/:-@\[-`{-~\p{P}]"
WHITESPACE = Split(WORDS_AND_SIGNS, True, "Removed", invert=True)


def describe(model: ByteLevelBPE | PreSplit, added: Iterable[tuple[str, int]]) -> dict[str, Any]:
    """The parts of a tokenizer.json but its normalizer.

    added: (spelling, id) of the added tokens, which the vocabulary lists too
    Raises ValueError for a pattern that means something else there, and for an added token spelled like another.
    """
    bare = model.model if isinstance(model, PreSplit) else model
    spelling = {id: to_characters(token) for id, token in bare.vocabulary.items()}
    vocabulary = {spelling[id]: id for id in sorted(spelling)}
    for content, id in added:
        if vocabulary.setdefault(content, id) != id:
            raise ValueError(
                f"a tokenizer.json cannot hold the added token {content!r}: token {vocabulary[content]} is spelled so."
            )
    merges = [f"{spelling[left]} {spelling[right]}" for left, right in bare.pairs()]
    return {
        "pre_tokenizer": describe_pre_tokenizer(model),
        "decoder": BYTE_LEVEL,
        "model": bpe(vocabulary, merges, ignore_merges=bare.whole_words),
    }


def describe_pre_tokenizer(model: ByteLevelBPE | PreSplit) -> dict[str, Any]:
    """The part pre_tokenizer: what cuts a text before the model, its patterns, and the spelling of its bytes."""
    splits, space = (list(model.splits), model.leading_space) if isinstance(model, PreSplit) else ([], False)
    pattern = model.model.pattern if isinstance(model, PreSplit) else model.pattern
    patterns = [pattern] if isinstance(pattern, str) else list(pattern)
    by_regex = patterns[-1:] == [GPT2]
    splits += [Split(_spelled(pattern), True, "Isolated") for pattern in (patterns[:-1] if by_regex else patterns)]
    last = BYTE_LEVEL | {"add_prefix_space": space, "use_regex": by_regex}
    parts = [*map(_describe_split, splits), last]
    return last if len(parts) == 1 else {"type": "Sequence", "pretokenizers": parts}


def read(document: Mapping[str, Any], added: Collection[str]) -> ByteLevelBPE | PreSplit:
    """The model of a tokenizer.json. Raises ValueError for a part that is not known."""
    model = document["model"]
    decoders = _flat(document.get("decoder") or {}, "decoders")
    require("decoder", [part.get("type") for part in decoders], ["ByteLevel"])
    for field in ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback"):
        require(f"model.{field}", model.get(field) or None, None)
    splits, patterns, space = read_pre_tokenizer(document["pre_tokenizer"])
    bare = build(model, added, patterns[0] if len(patterns) == 1 else patterns)
    return PreSplit(bare, splits, space) if splits or space else bare


def read_pre_tokenizer(part: Mapping[str, Any]) -> tuple[tuple[Split, ...], tuple[str, ...], bool]:
    """What cuts a text before the model, the patterns that the model itself cuts by, and whether a space is put before pieces."""
    *parts, last = _flat(part, "pretokenizers") or [{}]
    require("the last part of pre_tokenizer", last.get("type"), "ByteLevel")
    splits = list(map(_read_split, parts))
    patterns: list[str] = [GPT2] if last.get("use_regex", True) else []
    space = bool(last.get("add_prefix_space", True))
    while splits and not space and splits[-1].behavior == "Isolated" and splits[-1].is_regex:
        patterns.insert(0, splits.pop().pattern)  # the model's own way, which is the quicker one
    return tuple(splits), tuple(patterns), space


def build(model: Mapping[str, Any], added: Collection[str], pattern: Any = GPT2) -> ByteLevelBPE:
    """The model of a vocabulary and merges in GPT-2's spelling."""
    vocabulary = {id: to_bytes(spelling) for spelling, id in read_vocabulary(model, added).items()}
    return ByteLevelBPE.from_merges(vocabulary, read_merges(model), pattern, bool(model.get("ignore_merges")))


def _flat(part: Mapping[str, Any], field: str) -> list[Mapping[str, Any]]:
    """The parts of a sequence, those of sequences within it one after the other."""
    if part.get("type") != "Sequence":
        return [part]
    return [inner for each in part[field] for inner in _flat(each, field)]


def _read_split(part: Mapping[str, Any]) -> Split:
    kind = part.get("type")
    require("pre_tokenizer.type", kind, "Split", "Digits", "Punctuation", "Whitespace", "WhitespaceSplit", "CharDelimiterSplit")
    if kind == "Digits":
        return Split(r"\p{N}" if part["individual_digits"] else r"\p{N}+", True, "Isolated")
    if kind == "Punctuation":
        behavior = _behavior(part)
        # a run of characters that each are found is found as one: the same pieces, and the model's own pattern can say it
        return Split(PUNCTUATION + "+", True, "Isolated") if behavior == "Contiguous" else Split(PUNCTUATION, True, behavior)
    if kind == "Whitespace":
        return WHITESPACE
    if kind == "WhitespaceSplit":
        return Split(r"\s", True, "Removed")
    if kind == "CharDelimiterSplit":
        return Split(*read_search({"pattern": {"String": part["delimiter"]}}, "pre_tokenizer"), "Removed")
    pattern, is_regex = read_search(part, "pre_tokenizer")
    if is_regex:
        if repeated := REPEATED.search(pattern):
            raise ValueError(f"the pattern {pattern!r} has {repeated.group()}, which is not read here.")
        pattern = next((known for known, spelling in SPELLINGS.items() if spelling == pattern), pattern)
    return Split(pattern, is_regex, _behavior(part), bool(part.get("invert", False)))


def _behavior(part: Mapping[str, Any]) -> str:
    require("pre_tokenizer.behavior", part["behavior"], *BEHAVIORS)
    return part["behavior"]


def _describe_split(split: Split) -> dict[str, Any]:
    if split == WHITESPACE:
        return {"type": "Whitespace"}
    pattern = describe_search(_spelled(split.pattern) if split.is_regex else split.pattern, split.is_regex)
    return {"type": "Split", "pattern": pattern, "behavior": split.behavior, "invert": split.invert}


def _spelled(pattern: str) -> str:
    """A pattern as a tokenizer.json spells it. Raises ValueError for one that means something else there."""
    spelled = SPELLINGS.get(pattern, pattern)
    if repeated := REPEATED.search(spelled):
        raise ValueError(f"the pattern {spelled!r} has {repeated.group()}, which means something else in a tokenizer.json.")
    return spelled
