"""SentencePiece's maps of characters."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.conformance.specification import definitions
from refllm.tokenizer.character_map import CharacterMap, read_rules

keys = st.text(st.sampled_from("abé文"), min_size=1, max_size=3)
rules = st.dictionaries(keys, st.text("abx ", max_size=3), max_size=8)
texts = st.text(st.sampled_from("abcé文"), max_size=20)


@given(rules, texts)
def test_the_map_equals_its_definition(rules, text):
    assert CharacterMap(rules)(text) == definitions()["mapped"](text, rules)


@given(rules, texts, st.lists(keys, max_size=3))
def test_what_is_kept_is_left_alone_before_any_rule(rules, text, kept):
    characters = CharacterMap(rules, kept)
    steps = list(characters.steps(text))
    assert "".join(part for part, _, _ in steps) == characters(text)
    assert [start for _, start, _ in steps] == [0, *(end for _, _, end in steps)][: len(steps)]
    for part, start, end in steps:
        longest = max((word for word in kept if text.startswith(word, start)), key=len, default=None)
        assert (part, text[start:end]) == (longest, longest) if longest else part == rules.get(text[start:end], text[start])


@given(rules)
def test_a_precompiled_map_is_read_as_it_was_made(charsmap, rules):
    assert read_rules(charsmap(rules)) == rules
    assert CharacterMap.read(charsmap(rules)).rules == rules


def test_a_far_child_of_a_double_array_is_found():
    """An offset of 256 times its number, as darts-clone writes one that does not fit into its bits."""
    units = [0] * 1024
    units[0] = 2 << 10 | 1 << 9  # the children of the root at 512
    units[512 ^ ord("a")] = ord("a") | 1 << 8 | (600 ^ 512 ^ ord("a")) << 10
    units[600] = 1 << 31 | 3
    assert read_rules(struct.pack("<I1024I", 4096, *units) + b"xy\0z\0") == {"a": "z"}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"ab", "it has 2 bytes and needs 4 at least."),
        (struct.pack("<I", 8) + bytes(4), "its trie should have 8 bytes, and 4 are there."),
        (struct.pack("<I", 3) + bytes(4), "its trie should have 3 bytes, and 4 are there."),
    ],
)
def test_a_map_that_is_cut_off_is_refused(data, message):
    with pytest.raises(ValueError, match="^its character map is damaged: ") as error:
        CharacterMap.read(data)
    assert str(error.value).endswith(message)


def test_a_map_whose_replacements_are_missing_is_refused(charsmap):
    data = charsmap({"a": "one", "b": "two"})
    with pytest.raises(ValueError, match=r"the replacement of b'b' is not there\.$"):
        read_rules(data[:-1])
    with pytest.raises(ValueError, match=r"the rule for b'b' is not UTF-8\.$"):
        read_rules(data[:-2] + b"\xff\0")


def test_a_trie_that_goes_round_in_a_circle_is_refused():
    units = [0] * 256
    units[0] = 1 << 10
    units[1 ^ ord("a")] = ord("a") | (1 ^ 1 ^ ord("a")) << 10  # whose children are its brothers
    with pytest.raises(ValueError, match=r"its trie has a key that does not end, or too many\.$"):
        read_rules(struct.pack("<I256I", 1024, *units) + b"x\0")


@given(st.data())
def test_a_damaged_map_is_read_or_refused(charsmap, data):
    content = bytearray(charsmap({"a": "one", "ab": "two", "é": ""}))
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    refusal = None
    try:
        CharacterMap.read(bytes(content))("abé ab")
    except ValueError as error:
        refusal = str(error)
    assert refusal is None or refusal.startswith("its character map is damaged: ")
