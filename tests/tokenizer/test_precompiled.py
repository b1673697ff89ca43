"""Hugging Face's reading of SentencePiece's map of characters."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.tokenizer.character_map import CharacterMap
from refllm.tokenizer.normalizers import Normalizer
from refllm.tokenizer.precompiled import Precompiled, StripAccents

RULES = {"A": "a", "e\u0301": "é", "e\u0301\u0323": "ẹ́", "\r": " ", "\n": " ", "か\u3099": "が", "ﬁ": "fi", "\x01": ""}
texts = st.lists(st.sampled_from([*RULES, "\u0301", "\u0323", "e", "か", "x"])).map("".join)


@pytest.mark.parametrize(
    ("text", "changed"),
    [
        ("A\u0301x", "ax"),  # a short cluster is replaced whole by the rule for its beginning
        ("e\u0301\u0323", "é"),  # and by that of the shortest
        ("\r\n", " "),
        ("か\u3099A\u0301\u3099", "か\u3099a\u0301\u3099"),  # a cluster of six bytes and more goes by characters
        ("ﬁ\x01x", "fix"),
    ],
)
def test_a_cluster_is_replaced_as_in_tokenizers(text, changed):
    """The texts were printed by tokenizers 0.23.3."""
    assert Precompiled(CharacterMap(RULES)).apply(text) == changed


@given(texts)
def test_a_text_is_changed_alike_with_its_sources(text):
    for step in (Precompiled(CharacterMap(RULES)), StripAccents()):
        changed, sources = Normalizer((step,)).aligned(text)
        assert changed == step.apply(text)
        assert len(sources) == len(changed)


def test_accents_are_stripped_of_every_script():
    assert StripAccents().apply("e\u0301\u0903か\u3099x") == "eかx"
    assert Normalizer((StripAccents(),)).aligned("e\u0301x") == ("ex", [(0, 1), (2, 3)])


@pytest.mark.oracle
@given(st.data())
def test_a_text_is_changed_as_in_tokenizers(charsmap, hard_text, data):
    from tokenizers import normalizers

    text = data.draw(texts | hard_text)
    theirs = normalizers.Precompiled(charsmap(RULES))
    assert Precompiled(CharacterMap(RULES)).apply(text) == theirs.normalize_str(text)
    assert StripAccents().apply(text) == normalizers.StripAccents().normalize_str(text)
