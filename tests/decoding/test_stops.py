"""Stop strings: a text ends where the first of them is complete, however it is cut into pieces."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.conformance.specification import definitions
from refllm.decoding.stops import StopStrings
from refllm.tokenizer import StreamDecoder, train_bpe

TEXTS = st.text(alphabet="ab🌍", max_size=12)
STRINGS = st.text(alphabet="ab🌍", min_size=1, max_size=4)


@st.composite
def cut(draw, text):
    """The text in pieces, empty ones among them."""
    at = sorted(draw(st.lists(st.integers(0, len(text)), max_size=6)))
    return [text[i:j] for i, j in zip([0, *at], [*at, len(text)], strict=True)]


def told(pieces, strings, keep=False):
    stops = StopStrings(strings, keep)
    return "".join([*(stops.push(piece) for piece in pieces), stops.finish()])


@given(st.data(), TEXTS, STRINGS)
def test_the_pieces_joined_are_the_text_before_the_stop_string(data, text, stop):
    expected = text[: text.find(stop)] if stop in text else text
    assert told(data.draw(cut(text)), [stop]) == expected


@given(st.data(), TEXTS, st.lists(STRINGS, max_size=4), st.booleans())
def test_however_a_text_is_cut_it_ends_where_the_first_stop_string_is_complete(data, text, strings, keep):
    assert told(data.draw(cut(text)), strings, keep) == definitions()["until_stop"](text, strings, keep)


@given(st.data(), TEXTS, st.lists(STRINGS, min_size=1, max_size=3))
def test_no_more_is_held_back_than_may_become_a_stop_string(data, text, strings):
    stops, so_far, said = StopStrings(strings), "", ""
    for piece in data.draw(cut(text)):
        so_far, said = so_far + piece, said + stops.push(piece)
        if stops.found is not None:
            break
        held = so_far.removeprefix(said)
        assert said + held == so_far
        assert held == "" or any(len(held) < len(s) and s.startswith(held) for s in strings)


@given(TEXTS, STRINGS)
def test_a_stop_string_that_never_comes_loses_nothing(text, stop):
    stops = StopStrings([stop + "c"])
    assert stops.push(text) + stops.finish() == text
    assert stops.found is None
    assert stops.finish() == "", "what was released is not released again"


@given(st.data(), st.text(alphabet="ab🌍ü試", max_size=8), st.text(alphabet="ab🌍ü試", min_size=1, max_size=3))
def test_a_stop_string_is_found_across_tokens_that_split_its_characters(data, text, stop):
    tokenizer = train_bpe("abab", 258)
    decoder, stops, said = StreamDecoder(tokenizer), StopStrings([stop]), ""
    for token in tokenizer.encode(text):
        said += stops.push(decoder.push(token))
    assert said + stops.finish() == text.partition(stop)[0]


def test_a_stop_string_inside_one_piece_ends_the_text_there():
    stops = StopStrings(["END", "\n"])
    assert stops.push("one\ntwo END three") == "one"
    assert stops.found == "\n"
    assert stops.push("more") == stops.finish() == ""


def test_what_may_begin_a_stop_string_waits_until_it_cannot():
    stops = StopStrings(["abc", "bd"])
    assert [stops.push(piece) for piece in ("xa", "b", "b", "d")] == ["x", "", "ab", ""]
    assert stops.found == "bd"


@pytest.mark.parametrize("strings", [[""], ["a", ""], "ab"])
def test_stop_strings_that_cannot_be_are_refused(strings):
    with pytest.raises(ValueError, match="a stop string is empty|give a list of them"):
        StopStrings(strings)
