"""ARPA files: read, written, damaged, and as KenLM and the package arpa read them."""

import gzip
import random
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.checkpoints import arpa
from refllm.models import back_off, keyboard, pruning, stupid_backoff

EPS = np.finfo(np.float64).eps

# By hand: p(a | <s>) = 0.5 stands there; p(b | <s>) = 0.1 · p(b) and p(a | b) = p(a), for b begins no bigram.
SMALL = """some words before

\\data\\
ngram 1=5
ngram 2=2

\\1-grams:
-99\t<s>\t-1
-0.6\t</s>
-0.9\t<unk>
-0.5\ta\t-0.25
-0.7 b

\\2-grams:
-0.30103\t<s> a
-0.125\ta b

\\end\\
"""
FOXES = [line.split() for line in ("the quick brown fox", "the lazy dog", "a quick dog", "the fox", "jumps over the dog süß")]


def model(sentences, order=3, least=1):
    words = keyboard.vocabulary(sentences, least)
    return words, keyboard.kneser_ney(keyboard.counted(sentences, words, order))


@pytest.fixture
def small(tmp_path):
    path = tmp_path / "small.arpa"
    path.write_text(SMALL, encoding="utf-8")
    return path


def test_a_small_file_gives_what_arpa_says(small):
    words, table = arpa.read(small)
    assert words == ["<s>", "</s>", "<unk>", "a", "b"]
    got = back_off.log_probabilities(table, [0, 3, 4, 3, 0, 4, 1]) / back_off.LN10
    np.testing.assert_allclose(got, [-np.inf, -0.30103, -0.125, -0.5, -np.inf, -1.7, -0.6], atol=8 * EPS)


@given(
    st.lists(st.lists(st.sampled_from(["a", "b", "süß", "🌍", "c'd"]), min_size=1, max_size=5), min_size=1, max_size=8), st.data()
)
def test_an_arpa_file_read_and_written_gives_the_same_numbers(tmp_path_factory, sentences, data):
    words, table = model(sentences, data.draw(st.integers(1, 4)))
    path = tmp_path_factory.mktemp("arpa") / data.draw(st.sampled_from(["kb.arpa", "kb.arpa.gz"]))
    arpa.write(path, words, table)
    again, read = arpa.read(path)
    assert again == words
    assert read.begin == table.begin
    for ours, theirs in zip((*table.keys, *table.scores, *table.weights), (*read.keys, *read.scores, *read.weights), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert (path.read_bytes()[:2] == b"\x1f\x8b") == (path.suffix == ".gz")


@pytest.mark.oracle
@pytest.mark.parametrize("order", [2, 3, 4])
def test_kenlm_gives_our_files_our_probabilities(tmp_path, order):
    kenlm = pytest.importorskip("kenlm", reason="KenLM's package reads ARPA files: pip install kenlm")
    words, table = model(FOXES, order, least=1)
    arpa.write(tmp_path / "kb.arpa", words, table)
    theirs, ours = kenlm.Model(str(tmp_path / "kb.arpa")), keyboard.Keyboard(words, table, "spaces")
    for line in ("the quick dog", "a brown fox jumps", "never seen the fox", ""):
        found = [p for p, _, _ in theirs.full_scores(line)]
        ids = ours.sentence(line)
        expected = back_off.log_probabilities(table, ids[1:], ids[:1]) / back_off.LN10
        single = np.finfo(np.float32).eps  # KenLM stores float32, and adds a number for each step
        assert np.all(np.abs(found - expected) <= single * 2 * order * np.maximum(1, np.abs(expected)))


@pytest.mark.oracle
def test_the_package_arpa_gives_our_files_our_probabilities(tmp_path):
    package = pytest.importorskip("arpa", reason="the package arpa reads ARPA files: pip install arpa")
    words, table = model(FOXES)
    arpa.write(tmp_path / "kb.arpa", words, table)
    theirs = package.loadf(str(tmp_path / "kb.arpa"))[0]
    ours = keyboard.Keyboard(words, table, "spaces")
    for line in ("the quick dog", "a brown fox jumps", "the lazy fox"):
        expected = ours.log_probability(line) / back_off.LN10
        assert abs(theirs.log_s(line) - expected) <= 64 * EPS * abs(expected)


# What lmplz of KenLM (commit 4cb443e, with --discount_fallback) makes of five lines with -o 2, whose bigrams have its fallback
LMPLZ_LINES = "the quick brown fox\nthe lazy dog\na quick dog\nthe fox\njumps over the dog"
LMPLZ = """
\\data\\
ngram 1=12
ngram 2=16

\\1-grams:
-1.1747646	<unk>	0
0	<s>	-0.30103
-1.071095	</s>	0
-1.071095	the	-0.30103
-1.071095	quick	-0.30103
-0.977439	brown	-0.30103
-1.071095	fox	-0.30103
-0.977439	lazy	-0.30103
-1.1747646	dog	-0.30103
-0.977439	a	-0.30103
-0.977439	jumps	-0.30103
-0.977439	over	-0.30103

\\2-grams:
-0.26564053	fox </s>
-0.26564053	dog </s>
-0.46540314	<s> the
-0.26564053	over the
-0.77611554	the quick
-0.26564053	a quick
-0.5190363	quick brown
-0.77611554	the fox
-0.26564053	brown fox
-0.7503955	the lazy
-0.800148	the dog
-0.547546	quick dog
-0.27291822	lazy dog
-0.8162574	<s> a
-0.8162574	<s> jumps
-0.2575372	jumps over

\\end\\
"""
# and some n-grams of what it makes of the 400 lines of `many_lines` with -o 3, whose discounts are estimated for orders 2 and 3
LMPLZ_SOME = """
-0.9820217	w3 w8 w4
-1.286051	<s> w3 w5
-0.83110857	w25 w4	-0.13521163
-1.0577245	w29 w3	-0.13521163
-1.4767147	w4 w2 w5
-0.3458786	w14 w1	-0.26384965
-1.1367662	w18 w1 w6
-1.890607	w5 w1 w14
-0.4295273	w27 w1 w1
-1.2229472	w9 w3	-0.13521163
-0.53029567	w5 w19 w1
-0.5988688	w1 w4 w1
-1.3579228	w1 w6	-0.27465877
-0.52674806	w21 w6 w6
"""
SINGLE = 8 * np.finfo(np.float32).eps  # lmplz computes in float32


def many_lines():
    rng = random.Random(0)
    return [[f"w{int(rng.paretovariate(0.8)) % 30}" for _ in range(rng.randint(1, 9))] for _ in range(400)]


def test_lines_are_counted_and_smoothed_as_lmplz_does(tmp_path):
    words, table = model([line.split() for line in LMPLZ_LINES.splitlines()], 2)
    (tmp_path / "theirs.arpa").write_text(LMPLZ, encoding="utf-8")
    their_words, theirs = arpa.read(tmp_path / "theirs.arpa")
    ids = np.array([words.index(word) for word in their_words])
    assert table.sizes == theirs.sizes
    for n in (1, 2):
        number = back_off.number_of(table, ids[pruning.rows(theirs, n)])
        assert np.all(number >= 0)
        said = theirs.scores[n - 1] > -np.inf
        assert np.all(np.abs(table.scores[n - 1][number][said] - theirs.scores[n - 1][said]) <= SINGLE)
    number = back_off.number_of(table, ids[pruning.rows(theirs, 1)])
    assert np.all(np.abs(table.weights[0][number] - theirs.weights[0]) <= SINGLE)


def test_estimated_discounts_are_those_of_lmplz():
    words, table = model(many_lines())
    for fields in (line.split("\t") for line in LMPLZ_SOME.strip().splitlines()):
        gram = np.array([[words.index(word) for word in fields[1].split()]])
        number = int(back_off.number_of(table, gram)[0])
        assert abs(table.scores[gram.size - 1][number] - float(fields[0])) <= SINGLE * 2
        if len(fields) == 3:
            assert abs(table.weights[gram.size - 1][number] - float(fields[2])) <= SINGLE * 2


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda s: s.replace("\\data\\", "data"), "is no ARPA file: it has no line"),
        (lambda s: s.replace("ngram 1=5", "ngram 1=4"), "stands where \\\\2-grams: is needed"),
        (lambda s: s.replace("ngram 2=2", "ngram 2=3"), "order 2 has 2 n-grams, but \\\\data\\\\ tells of 3"),
        (lambda s: s.replace("ngram 2=2", "ngram 2=1"), "stands where \\\\end\\\\ is needed"),
        (lambda s: s.replace("ngram 2=2", "ngram 3=2"), "stands where ngram 2=COUNT is needed"),
        (lambda s: s.replace("ngram 1=5", "ngram 1=x"), "stands where ngram 1=COUNT is needed"),
        (lambda s: s.replace("ngram 1=5\nngram 2=2\n", ""), "tells of no word"),
        (lambda s: s.replace("\\2-grams:", ""), "has 2 n|stands where \\\\2-grams: is needed"),
        (lambda s: s.replace("\\end\\", ""), "the file ends before \\\\end\\\\; it is cut"),
        (lambda s: s[: s.index("-0.125")], "the file ends before n-gram 2 of the 2 of order 2"),
        (lambda s: s.replace("-0.125", "zero"), "'zero' stands where a logarithm is needed"),
        (lambda s: s.replace("-0.125", "nan"), "'nan' stands where a logarithm is needed"),
        (lambda s: s.replace("-0.125", "0.125"), "log10 p above 0"),
        (lambda s: s.replace("-0.5\ta", "0.5\ta"), "'a' has log10 p = 0.5, which is above 0"),
        (lambda s: s.replace("a b", "a c"), "the word 'c' is not among the 1-grams"),
        (lambda s: s.replace("a b", "a"), "needs log10 p, 2 words and perhaps a weight"),
        (lambda s: s.replace("-0.7 b", "-0.7 a"), "the word 'a' stands there twice"),
        (lambda s: s.replace("a b", "<s> a"), "some 2-gram stands there twice"),
        (
            lambda s: s.replace("\n\n\\end", "\n\n\\3-grams:\n-1 b a b\n\n\\end").replace("2=2", "2=2\nngram 3=1"),
            "'b a b' is there, but not",
        ),
    ],
)
def test_a_damaged_file_is_refused_in_one_sentence(small, damage, says):
    damaged = damage(SMALL)
    assert damaged != SMALL
    small.write_text(damaged, encoding="utf-8")
    with pytest.raises(ValueError, match=says) as refused:
        arpa.read(small)
    assert re.fullmatch(rf"{re.escape(str(small))}.*\.", str(refused.value), re.DOTALL)


@given(st.data())
def test_damaged_bytes_are_read_or_refused_and_never_crash(tmp_path_factory, data):
    whole = SMALL.encode()
    packed = data.draw(st.booleans())
    whole = gzip.compress(whole, mtime=0) if packed else whole
    start = data.draw(st.integers(0, len(whole)))
    end = data.draw(st.integers(start, min(len(whole), start + 8)))
    path = tmp_path_factory.mktemp("arpa") / "kb"
    path.write_bytes(whole[:start] + data.draw(st.binary(max_size=6)) + whole[end:])
    try:
        words, table = arpa.read(path)
    except ValueError as error:
        refusal = str(error)
    else:
        refusal = None
        assert len(words) == table.vocab_size
        assert not np.isnan(back_off.log10_distribution(table, [0] * (table.order - 1))).any()
    assert refusal is None or str(path) in refusal


@pytest.mark.parametrize("word", ["", "a b", "a\tb", "a\nb", "b"])
def test_words_that_a_line_cannot_hold_are_refused(tmp_path, word):
    _, table = model([["a", "b"]])
    with pytest.raises(ValueError, match="without white space"):
        arpa.write(tmp_path / "kb.arpa", ["<unk>", "<s>", "</s>", word, "b"], table)
    assert not list(tmp_path.iterdir())


def test_stupid_backoff_is_refused(tmp_path):
    with pytest.raises(ValueError, match="cannot hold stupid backoff"):
        arpa.write(tmp_path / "kb.arpa", ["a", "b"], stupid_backoff.train([0, 1], 2, 2))


def test_ngrams_in_any_order_are_the_same_model(tmp_path):
    words, table = model(FOXES, 3)
    arpa.write(tmp_path / "a.arpa", words, table)
    parts = (tmp_path / "a.arpa").read_text(encoding="utf-8").split("\n\n")
    shuffled = [parts[0], parts[1], *("\n".join([p.split("\n")[0], *p.split("\n")[:0:-1]]) for p in parts[2:-1]), parts[-1]]
    (tmp_path / "b.arpa").write_text("\n\n".join(shuffled), encoding="utf-8")
    _, read = arpa.read(tmp_path / "b.arpa")
    for ours, theirs in zip((*table.keys, *table.scores, *table.weights), (*read.keys, *read.scores, *read.weights), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_99_is_the_logarithm_of_0_and_a_file_without_unk_gets_one_of_it(small):
    small.write_text(SMALL.replace("-0.9\t<unk>\n", "").replace("1=5", "1=4").replace("-0.7 b", "-99 b"), encoding="utf-8")
    words, table = arpa.read(small)
    assert words == ["<s>", "</s>", "a", "b", "<unk>"]
    assert np.isneginf(table.scores[0]).tolist() == [True, False, False, True, True]


@pytest.mark.parametrize(
    ("damage", "says"), [("-0.1_25", "a logarithm is needed"), (" " * (1 << 20), "a line has 1048576 bytes")]
)
def test_a_number_with_a_line_in_it_and_a_line_without_end_are_refused(small, damage, says):
    small.write_text(SMALL.replace("-0.125", damage), encoding="utf-8")
    with pytest.raises(ValueError, match=says):
        arpa.read(small)
