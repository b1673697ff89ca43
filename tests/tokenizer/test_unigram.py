"""SentencePiece's Unigram model: the definition, the package, and what comes back."""

import math
from itertools import groupby

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.conformance.specification import definitions
from refllm.tokenizer import Tokenizer
from refllm.tokenizer.unigram import Unigram, float32

letters = st.text(st.sampled_from("ab "), min_size=1, max_size=4)
texts = st.text(st.sampled_from("abc "), max_size=12)
WHOLE = st.integers(-3, 0).map(float)  # sums of these are exact, and often equal


@st.composite
def scored(draw, scores=WHOLE):
    """Pieces of a few letters with scores, some equal; not every letter is a piece."""
    return {piece: draw(scores) for piece in draw(st.lists(letters, unique=True, min_size=1, max_size=12))}


def model_of(scores, unknown_score=-16.0, **options):
    pieces = dict(enumerate(scores, 300))
    return Unigram(pieces, {id: scores[piece] for id, piece in pieces.items()}, 0, unknown_score, **options)


@given(scored(), texts)
def test_unigram_equals_its_definition(scores, text):
    best = definitions()["unigram"](text, scores, -16.0)
    ids = [list(scores).index(piece) + 300 if piece in scores else 0 for piece in best]
    fused = [id for i, id in enumerate(ids) if id != 0 or ids[i - 1 : i] != [0]]
    in_bytes = [
        id
        for piece in best
        for id in ([list(scores).index(piece) + 300] if piece in scores else list(piece.replace(" ", "\u2581").encode()))
    ]
    for arithmetic in ("float32", "float64"):
        assert model_of(scores, arithmetic=arithmetic).encode(text) == fused
        assert model_of(scores, arithmetic=arithmetic, byte_ids=range(256)).encode(text) == in_bytes


def in_one_search(scores, unknown_score, text, dtype):
    """The pieces of a text by Viterbi's search from end to end, each sum rounded; None for what is unknown."""
    best, last, reset = (
        [dtype(0)] + [dtype(-np.inf)] * len(text),
        [None] * (len(text) + 1),
        1e5 if dtype is np.float32 else np.inf,
    )
    for start in range(len(text)):
        if best[start] < -reset:
            best[start:] = [dtype(score - best[start]) for score in best[start:]]
        for end in range(start + 1, min(len(text), start + 4) + 1):  # no piece is longer
            piece = text[start:end]
            score = scores.get(piece, unknown_score if end == start + 1 else -math.inf)
            if best[start] + dtype(score) > best[end]:
                best[end], last[end] = best[start] + dtype(score), (start, piece if piece in scores else None)
    pieces, end = [], len(text)
    while end:
        end, piece = last[end]
        pieces.insert(0, piece)
    return pieces


THIRDS = st.integers(-60, 0).map(lambda thirds: float32(thirds / 3))  # sums of these are rounded, and often come close
FAR = st.sampled_from([float32(-1e4 / 3), float32(-1e5 / 7), float32(-131072)])


@given(scored(THIRDS | FAR), st.lists(texts, min_size=1, max_size=4), st.sampled_from(["float32", "float64"]))
def test_remembered_words_change_no_id(scores, texts, arithmetic):
    scores |= {"  c": scores.get("  c", -1 / 3)}
    scores = {piece: float32(score) for piece, score in scores.items()}
    model, dtype = model_of(scores, float32(-50 / 3), arithmetic=arithmetic), np.dtype(arithmetic).type
    for text in (*texts, "".join(texts), "".join(texts) * 2):
        pieces = in_one_search(scores, float32(-50 / 3), text, dtype)
        ids = [0 if piece is None else list(scores).index(piece) + 300 for piece in pieces]
        assert model.encode(text) == [id for i, id in enumerate(ids) if id != 0 or ids[i - 1 : i] != [0]]


@pytest.mark.parametrize("arithmetic", ["float32", "float64"])
@pytest.mark.parametrize("far", [-7.7, -301.1, -900.1, -30000.3])
def test_a_long_text_is_rounded_as_by_one_search(arithmetic, far):
    """Of many ways that come close, after sums of every size, and far enough for sums that begin anew."""
    rng = np.random.default_rng(0)
    pieces = [" I", " II", "I", "II", "III", " ", "V", " V", "IV", "VI", " VI"]
    odd = {piece: (2 * (300 * len(piece) + place) + 1) / -256 for place, piece in enumerate(pieces)}  # halves of spacings
    scores = odd | {"z": float32(far), " z": float32(far - 1)}
    words = ["".join(rng.choice(["I", "V", "II", "z"], rng.integers(1, 6), p=[0.4, 0.3, 0.25, 0.05])) for _ in range(40)]
    model = model_of(scores, arithmetic=arithmetic)
    for length in (5, 300, 300, 300, 60):
        text = " ".join(rng.choice(words, length))
        expected = in_one_search(scores, -16.0, text, np.dtype(arithmetic).type)
        assert model.encode(text) == [list(scores).index(piece) + 300 for piece in expected]
        total = 0.0
        for word, path in model._paths(text):  # each word as it is remembered, and searched anew
            anew = model._path(word, total)
            after = path.end if path.start == total else total + (path.end - path.start)
            assert (path.pieces, after) == (anew.pieces, anew.end)
            total = anew.end


def test_of_equal_ways_the_last_piece_is_the_longest():
    assert model_of({"a": -1.0, "aa": -2.0}).encode("aaa") == [300, 301]


def test_rounding_decides_between_equal_ways():
    """III is I II or II I, whose scores have the same sum: at the start of a text, and after one."""
    scores = {"I": float32(-7.3), "II": float32(-9.1), "x": float32(-1.7)}
    found = {tuple(model_of(scores).encode("x" * n + "III"))[n:] for n in range(40)}
    assert found == {(300, 301), (301, 300)}


def test_sums_begin_anew_when_they_are_far_below_zero():
    scores = {"I": float32(-7.3), "II": float32(-9.1), "z": float32(-50000.3)}
    after = {n: model_of(scores).encode("z" * n + "III" * 3)[n:] for n in range(6)}
    assert after[2] == after[4]
    assert after[0] != after[2] or after[1] != after[2]


@given(scored(), texts, st.booleans())
def test_offsets_cut_the_text_into_its_tokens(scores, text, has_bytes):
    model = model_of(scores, byte_ids=range(256) if has_bytes else ())
    ids, spans = model.encode_with_offsets(text)
    assert ids == model.encode(text)
    assert "".join(text[start:end] for (start, end), _ in groupby(spans)) == text
    for id, (start, end) in zip(ids, spans, strict=True):
        covered = text[start:end]
        assert (
            id == 0 or model.vocabulary[id] == covered.encode() or model.vocabulary[id] in covered.replace(" ", "\u2581").encode()
        )


def test_a_run_of_what_is_unknown_is_one_token_from_word_to_word():
    assert model_of({"a": -1.0}).encode_with_offsets("ax ya") == ([300, 0, 300], [(0, 1), (1, 4), (4, 5)])


def test_each_byte_of_an_unknown_character_covers_it():
    model = model_of({"a": -1.0}, byte_ids=range(256))
    assert model.encode_with_offsets("aé") == ([300, 0xC3, 0xA9], [(0, 1), (1, 2), (1, 2)])


def test_a_piece_without_a_score_is_never_taken_but_decoded():
    model = Unigram({1: "a", 2: "b", 3: "ab"}, {1: -1.0, 2: -1.0}, 0, -11.0)
    assert model.encode("ab") == [1, 2]
    assert model.vocabulary[3] == b"ab"


def test_an_escaped_space_in_the_text_reads_as_a_space():
    assert model_of({"a": -1.0, " ": -2.0}).encode("a\u2581") == [300, 301]


def test_the_array_of_ids_equals_the_list(backend):
    model = model_of({"a": -1.0, "ab": -1.5, " ": -2.0})
    for text in ("", "ab a b  abc" * 9):
        found = model.encode_array(text, backend.xp)
        assert backend.xp.to_numpy(found).tolist() == model.encode(text)
        assert backend.xp.to_numpy(found).dtype == np.int32


def test_a_long_word_takes_time_in_proportion():
    model = model_of({"a": -1.0, "aaa": -2.0})
    assert model.encode("a" * 100_000).count(301) == 33_333


def test_a_vocabulary_that_cannot_be_used_is_refused():
    with pytest.raises(ValueError, match=r"^the vocabulary has pieces for 3 of the 256 bytes; it needs all or none\.$"):
        Unigram({0: "a"}, {0: -1.0}, 0, -11.0, byte_ids=range(1, 4))
    with pytest.raises(ValueError, match=r"^the vocabulary has an empty piece\.$"):
        Unigram({1: ""}, {1: -1.0}, 0, -11.0)
    with pytest.raises(ValueError, match=r"^a score of the vocabulary is not a finite number\.$"):
        Unigram({1: "a"}, {1: math.inf}, 0, -11.0)


OPTIONS = [
    {"model_type": kind} | options
    for kind in ("unigram", "bpe")
    for options in (
        {},
        {"normalization_rule_name": "identity", "byte_fallback": True},
        {"normalization_rule_name": "nfkc", "remove_extra_whitespaces": False},
        {"normalization_rule_name": "nmt_nfkc_cf", "treat_whitespace_as_suffix": True},
        {"normalization_rule_name": "nfkc_cf", "add_dummy_prefix": False, "byte_fallback": True},
        {"symbols": "<a>|\u2581x|the ca" if kind == "unigram" else "<a>|\u2581x"},
        {"split_by_whitespace": False, "vocab_size": 900},
        {"split_digits": True, "allow_whitespace_only_pieces": True, "remove_extra_whitespaces": False},
    )
]
LOADED = {}


@pytest.mark.oracle
@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: " ".join(map(str, options.values())))
def test_any_text_has_sentencepieces_ids_and_comes_back_as_there(spm_trained, hard_text, options):
    theirs, path = spm_trained(**options)
    ours = Tokenizer.load(path)
    odd = st.sampled_from(["III", " x", "<a>", "the ca", "e\u0301", "か\u3099", "\u2581", "  "])

    @given(st.lists(hard_text | odd, max_size=3).map("".join))
    def agrees(text):
        ids = theirs.encode(text)
        assert ours.encode(text, disallowed_special=()) == ids
        if "\u2581" not in text:
            assert ours.decode(ids).replace("<unk>", " ⁇ ") == theirs.decode(ids)

    agrees()


@pytest.mark.oracle
@pytest.mark.parametrize("options", OPTIONS[:8], ids=lambda options: " ".join(map(str, options.values())))
def test_a_book_has_sentencepieces_ids(spm_trained, topics, options):
    theirs, path = spm_trained(**options)
    ours = Tokenizer.load(path)
    for start, length in ((0, 120_000), (200_000, 40_000), (100_000, 3_000)):  # each after the sums that the others left
        assert ours.encode(topics[start : start + length]) == theirs.encode(topics[start : start + length])
