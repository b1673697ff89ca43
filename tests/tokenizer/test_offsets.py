"""Spans of characters from lengths in bytes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.conformance.specification import definitions
from refllm.tokenizer.offsets import character_of_each_byte, spans_of_bytes


@given(data=st.data())
def test_a_span_covers_the_characters_whose_bytes_the_token_holds(hard_text, data):
    text = data.draw(hard_text)
    n = len(text.encode())
    cuts = sorted({0, n, *data.draw(st.lists(st.integers(0, n), max_size=8))})
    owners = [i for i, character in enumerate(text) for _ in character.encode()]
    lengths = [end - begin for begin, end in zip(cuts, cuts[1:], strict=False)]
    expected = definitions()["token_spans"]([len(character.encode()) for character in text], lengths)
    assert list(map(list, spans_of_bytes(text, lengths))) == expected
    assert character_of_each_byte(text).tolist() == owners


@pytest.mark.parametrize(
    ("text", "lengths", "start", "spans"),
    [
        ("", [], 0, []),
        ("é", [1, 1], 0, [(0, 1), (0, 1)]),
        ("ab", [2, 1], -1, [(0, 1), (1, 2)]),
        ("ab", [1, 2], -1, [(0, 0), (0, 2)]),
        ("", [1], -1, [(0, 0)]),
    ],
)
def test_what_was_put_before_the_text_is_covered_by_no_character(text, lengths, start, spans):
    assert spans_of_bytes(text, lengths, start) == spans
