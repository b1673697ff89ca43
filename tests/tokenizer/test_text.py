"""Text with surrogates."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.tokenizer.text import bounds_before_repair, repaired


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_text_that_utf8_can_carry_stays_as_it_is(text):
    assert repaired(text) is text


@given(data=st.data())
def test_repaired_text_can_be_carried_and_is_not_repaired_further(broken_text, data):
    text = repaired(data.draw(broken_text))
    assert text.encode().decode() == repaired(text) == text


@pytest.mark.parametrize(
    ("text", "expected"), [("a\ud800b", "a\ufffdb"), ("\ud83d\ude00", "😀"), ("\ude00\ud83d", "\ufffd\ufffd")]
)
def test_surrogates_are_repaired_as_utf16_reads_them(text, expected):
    assert repaired(text) == expected


@given(data=st.data())
def test_each_repaired_character_begins_where_it_was(broken_text, data):
    text = data.draw(broken_text)
    bounds = bounds_before_repair(text)
    assert len(bounds) == len(repaired(text)) + 1
    assert "".join(repaired(text[a:b]) for a, b in zip(bounds, bounds[1:], strict=False)) == repaired(text)
    assert (bounds[0], bounds[-1]) == (0, len(text))


@pytest.mark.oracle
@given(data=st.data())
def test_surrogates_are_repaired_as_tiktoken_does(broken_text, data):
    import tiktoken

    text = data.draw(broken_text)
    byte_ids = tiktoken.Encoding(
        "bytes", pat_str=r"[\s\S]", mergeable_ranks={bytes([i]): i for i in range(256)}, special_tokens={}
    )
    assert repaired(text).encode() == bytes(byte_ids.encode_ordinary(text))
