"""Text cut before the model, what is found dropped or joined."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.array_api import load
from refllm.tokenizer import Tokenizer
from refllm.tokenizer.byte_level_bpe import ByteLevelBPE
from refllm.tokenizer.pre_split import BEHAVIORS, WORDS_AND_SIGNS, PreSplit, Split

BYTES = ByteLevelBPE({i: bytes([i]) for i in range(256)}, {}, ())
TEXT = "the-final--countdown-"


def pieces(text, *split):
    return [text[start:end] for start, end in Split(*split).pieces(text)]


@pytest.mark.parametrize(
    ("behavior", "expected"),
    [
        ("Isolated", ["the", "-", "final", "-", "-", "countdown", "-"]),
        ("Removed", ["the", "final", "countdown"]),
        ("MergedWithPrevious", ["the-", "final-", "-", "countdown-"]),
        ("MergedWithNext", ["the", "-final", "-", "-countdown", "-"]),
        ("Contiguous", ["the", "-", "final", "--", "countdown", "-"]),
    ],
)
def test_what_is_found_stands_alone_is_dropped_or_joined(behavior, expected):
    assert pieces(TEXT, "-", False, behavior) == expected
    assert pieces(TEXT, "-", True, behavior) == expected


def test_what_lies_between_may_count_as_found_instead():
    assert pieces(TEXT, "-", False, "Removed", True) == ["-", "-", "-", "-"]
    assert pieces(TEXT, "[a-z]+", True, "MergedWithNext", True) == pieces(TEXT, "-+", True, "MergedWithNext")
    assert pieces("a b_1\u0301, c!?", WORDS_AND_SIGNS, True, "Removed", True) == ["a", "b_1\u0301", ",", "c", "!?"]
    assert pieces("", "-", False, "Isolated") == []


def test_each_piece_is_a_text_of_its_own():
    model = PreSplit(BYTES, (Split(" ", False, "Removed"), Split("b", False, "MergedWithNext")), leading_space=True)
    assert bytes(model.encode("ab  c")) == b" a b c"
    assert model.encode_with_offsets("ab  é") == (
        [*b" a b", *" é".encode()],
        [(0, 1), (0, 1), (1, 2), (1, 2), (4, 5), (4, 5), (4, 5)],
    )
    assert model.encode("") == []
    assert model.encode(" ") == []


def test_a_space_is_put_before_a_piece_that_has_none():
    model = PreSplit(BYTES, (), leading_space=True)
    assert bytes(model.encode("a b")) == b" a b"
    assert bytes(model.encode(" a")) == b" a"
    assert bytes(PreSplit(BYTES, (), leading_space=False).encode("a")) == b"a"


@given(data=st.data())
def test_arrays_hold_the_same_ids(backend, trained, hard_text, data):
    text = data.draw(hard_text)
    model = PreSplit(trained.model, (Split(r"\p{N}", True, "Removed"),), leading_space=True)
    array = model.encode_array(text, backend.xp)
    assert array.dtype == backend.xp.int32
    assert np.array_equal(backend.xp.to_numpy(array), np.array(model.encode(text), np.int32))
    assert model.encode_array("", load("numpy").xp).tolist() == []


splits = st.builds(
    Split,
    st.sampled_from([r"\p{N}", r"\s+", "a", "[a-z]+", r" ?\p{L}+|\p{P}", r"[^\r\n]"]),
    st.just(True),
    st.sampled_from(BEHAVIORS),
    st.booleans(),
) | st.builds(Split, st.sampled_from(["a", " ", "é", "'s", "--"]), st.just(False), st.sampled_from(BEHAVIORS), st.booleans())


@pytest.mark.oracle
@given(data=st.data(), rules=st.lists(splits, min_size=1, max_size=3), space=st.booleans())
def test_ids_and_spans_are_those_of_tokenizers(trained, hard_text, data, rules, space):
    import tokenizers

    from refllm.tokenizer.formats.hugging_face import to_document

    text = data.draw(hard_text)
    ours = Tokenizer(PreSplit(trained.model, tuple(rules), space))
    theirs = tokenizers.Tokenizer.from_str(json.dumps(to_document(ours))).encode(text)
    ids, spans = ours.encode_with_offsets(text)
    assert ids == ours.encode(text) == theirs.ids
    assert spans == theirs.offsets
