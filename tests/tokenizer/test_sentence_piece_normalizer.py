"""What SentencePiece does to a text before it is cut."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.conformance.specification import definitions
from refllm.tokenizer.character_map import CharacterMap
from refllm.tokenizer.normalizers import Normalizer
from refllm.tokenizer.sentence_piece_normalizer import SentencePieceNormalizer

texts = st.text(st.sampled_from("ab \t\x01\u2581 "), max_size=16)
RULES = {"\t": " ", "\x01": "", "bb": "  B ", "a": "a"}


@given(texts.map(lambda text: text.replace("\u2581", "")), st.sampled_from(["", " "]))
def test_spaces_left_equal_their_definition(text, before):
    rules = {"\t": " ", "\x01": ""}
    spaced = definitions()["single_spaced"](definitions()["mapped"](text, rules))
    normalizer = SentencePieceNormalizer(CharacterMap(rules), single_spaces=True, before=before, behind="")
    assert normalizer.apply(text) == (before + spaced if spaced else "")


@given(texts, st.booleans(), st.sampled_from([(" ", ""), ("", " "), ("", "")]), st.sampled_from([(), ("  a",), ("a ", " ")]))
def test_a_text_is_changed_alike_with_and_without_its_sources(text, single_spaces, around, kept):
    normalizer = SentencePieceNormalizer(CharacterMap(RULES, kept), single_spaces, *around)
    changed, sources = Normalizer((normalizer,)).aligned(text)
    assert changed == normalizer.apply(text)
    assert len(sources) == len(changed)
    assert all(first <= last for span in zip(sources, sources[1:], strict=False) for first, last in zip(*span, strict=True))
    for character, (start, end) in zip(changed, sources, strict=True):
        if character in "ab" and not kept:
            assert text[start:end] == character


@pytest.mark.parametrize(
    ("text", "changed", "suffixed"),
    [
        ("", "", ""),
        ("  ", "", ""),
        (" a\t b ", " a b", "a b "),
        ("\x01", "", " "),  # gone, but nothing of it was a space
        ("a\u2581 ", " a", "a "),
        ("\u2581a", " \u2581a", "\u2581a "),
        ("abb", " a  B", "a  B "),  # spaces that one rule makes stay together
        ("a bb", " a B", "a B "),
    ],
)
def test_extra_spaces_are_taken_away_as_in_sentencepiece(text, changed, suffixed):
    """The texts were printed by sentencepiece 0.2.3, or follow normalizer.cc line by line where no model has such a rule."""
    characters = CharacterMap(RULES)
    assert SentencePieceNormalizer(characters, True, " ", "").apply(text) == changed
    assert SentencePieceNormalizer(characters, True, "", " ").apply(text) == suffixed


def test_without_removal_all_spaces_stay():
    normalizer = SentencePieceNormalizer(CharacterMap(RULES), single_spaces=False, before=" ", behind="")
    assert [normalizer.apply(text) for text in ("", " ", " a\t", "\x01")] == ["", "  ", "  a ", " "]


def test_sources_are_those_of_the_given_text():
    normalizer = SentencePieceNormalizer(CharacterMap({"ﬁ": "fi"}), single_spaces=True, before=" ", behind="")
    assert Normalizer((normalizer,)).aligned("  ﬁ  b ") == (" fi b", [(2, 2), (2, 3), (2, 3), (3, 4), (5, 6)])
