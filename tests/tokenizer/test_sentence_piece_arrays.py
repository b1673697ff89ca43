"""SentencePiece's BPE over arrays: the ids of the scalar path, on every backend."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.array_api import kernels
from refllm.tokenizer.sentence_piece import LONG, SentencePieceBPE, merges_by_score
from refllm.tokenizer.sentence_piece_arrays import SLOTS, code_points, encode_points, piece_tables, side_by_side, slots, utf8


@st.composite
def models(draw):
    """Models of a few pieces, some scores equal, some letters no piece, some pieces user-defined; with bytes or without."""
    letters = st.text(st.sampled_from("ab é"), min_size=1, max_size=4)
    pieces = dict(enumerate(draw(st.lists(letters, unique=True, min_size=1, max_size=10)), 300))
    scores = {id: draw(st.integers(-6, 0)) for id in pieces}
    user_defined = [id for id in pieces if draw(st.integers(0, 4)) == 0]
    byte_ids = draw(st.sampled_from([(), range(256)]))
    return SentencePieceBPE(pieces, merges_by_score(pieces, scores), byte_ids, user_defined, unknown=7)


def through_arrays(model, text, xp):
    """The ids of a text from the array path, whatever the backend would choose."""
    tables = piece_tables(model.pieces, model.merges, model.byte_ids, (), model.unknown, xp)
    return xp.to_numpy(encode_points(xp.from_numpy(code_points(text)), tables)).tolist()


@given(models(), st.text(st.sampled_from("abcé 😀\n"), min_size=1, max_size=24))
def test_arrays_give_the_ids_of_the_scalar_path(backend, model, text):
    assert backend.xp.to_numpy(model.encode_array(text, backend.xp)).tolist() == model.encode(text)
    plain = SentencePieceBPE(model.pieces, model.merges, model.byte_ids, unknown=7)
    with kernels(backend, {}):
        assert through_arrays(plain, " " + text, backend.xp) == plain.encode(text)
    assert through_arrays(plain, " " + text, backend.xp) == plain.encode(text)


@given(data=st.data())
def test_llama2s_text_through_arrays(llama2, hard_text, backend, data):
    text = data.draw(hard_text)
    ids = llama2.encode_array(text, disallowed_special=(), backend=backend)
    assert ids.dtype == backend.xp.int32
    assert backend.xp.to_numpy(ids).tolist() == llama2.encode(text, disallowed_special=())


@pytest.mark.parametrize("n", [1, 40, 41])
def test_equal_characters_are_joined_from_the_left(llama2, backend, n):
    for text in ("a" * n, " " * n, "=" * n):
        assert backend.xp.to_numpy(llama2.encode_array(text, backend=backend)).tolist() == llama2.encode(text)


@given(st.lists(st.text(st.sampled_from("abcé "), min_size=1, max_size=5), min_size=1, max_size=5))
def test_exactly_the_characters_that_stand_side_by_side_in_a_piece_may_join(pieces):
    table = side_by_side(pieces)
    assert table.shape == (SLOTS,)
    for pair in {a + b for a in "abcé " for b in "abcé "}:
        left, right = code_points(pair)
        assert table[slots(left, right)] == any(pair in piece for piece in pieces), pair


@given(st.text(min_size=1, max_size=6))
def test_bytes_are_those_of_utf8(backend, text):
    text = text.encode("utf-8", "replace").decode()
    data, lengths = utf8(backend.xp.from_numpy(code_points(text)))
    data, lengths = backend.xp.to_numpy(data), backend.xp.to_numpy(lengths)
    assert [bytes(row[:n].tolist()) for row, n in zip(data, lengths, strict=True)] == [c.encode() for c in text]
    assert all(not row[n:].any() for row, n in zip(data, lengths, strict=True))


def test_the_largest_code_points_have_slots():
    largest = np.array([0x10FFFF + 1000], np.int32)
    assert 0 <= slots(largest, largest)[0] < SLOTS


@given(st.text(st.sampled_from("ab é😀\n"), min_size=1, max_size=12), st.integers(0, 2**32 - 1))
def test_long_text_has_the_ids_of_its_lines(llama2, line, seed):
    """U+000A stands in no piece of Llama 2, so lines are encoded apart; the prefix belongs to the first."""
    drawn = np.random.default_rng(seed).integers(2, size=LONG).astype(bool)
    lines = [line if one else line[::-1] for one in drawn]
    each = {text: llama2.encode("\n" + text)[1:] for text in {line, line[::-1]}}
    assert llama2.encode("\n".join(["", *lines])) == [29871, *(id for text in lines for id in each[text])]
