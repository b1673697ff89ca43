"""Words found by arrays are those of the pattern: for every pattern, on every backend, with kernels and without."""

import itertools
import random
import sysconfig
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.array_api import kernels, load
from refllm.conformance.specification import definitions
from refllm.tokenizer.words.kinds import CASELESS, LOWER, MARK, NUMBER, UPPER, is_white, kind_table
from refllm.tokenizer.words.patterns import CL100K, GPT2, GPT2_ENCODER, GPT2_MINBPE, LLAMA3, MINBPE, NANOCHAT, O200K, QWEN2
from refllm.tokenizer.words.pretokenize import code_points, words_by_pattern
from refllm.tokenizer.words.starts import FORMS, has_array_form, word_starts

PATTERNS = {"gpt2": GPT2, "cl100k": CL100K, "llama3": LLAMA3, "qwen2": QWEN2, "nanochat": NANOCHAT, "o200k": O200K}
SAME = {GPT2_ENCODER: GPT2, GPT2_MINBPE: GPT2, MINBPE: LLAMA3}  # other spellings
DISTINCT = ["gpt2", "cl100k", "qwen2", "o200k"]  # the array forms; cl100k's stands on Llama 3's, and Qwen 2's is Llama 3's
DIGITS = {"llama3": [3], "qwen2": [1], "nanochat": [2], "cl100k": [3], "o200k": [3]}

# One character of each kind, and those that a rule names.
DECIDING = ["a", "A", "1", ".", "'", " ", "\n", "\r", "\t", "/", "s", "l", "L", "中", "\u0301", "ſ", "'s", "'ll", "\u00a0"]

ADVERSARIAL = [
    "a's's's's",
    "a'll'll'llama 'll'll A'S'Ll'lL ''s'' '''s s'ſa'ſ'ſ",
    "a'r a'v a'l 'x a'",
    "don'T we'RE K'S",
    "I'd I'm it's can't they've we're she'll 'd 'm 've 're I'D I'VE 'al 'xe 'le 'ee",
    *["a'l", "a'L", "'l", "'v", "a'r", "中Aa", "中A", "a中Aa", "a中A", "a\n  ", "a\n\t ", "\n \n.", "\n \na"],
    ".\u0301a .\u0301a ..\u0301a a\u0301.a \u0301\u0301a \u0301.\u0301A\u0301\u0301.\u0301\n/a",
    "A\u0301A A\u0301AA\u0301A a\u0301A\u0301Aa 中A 中AA中A a中A中Aa ʰA's中A'sA",
    ".\n//\n/a .\n/.\n//./a\n/a/\n\n/ //\u0301\n//\u0301\n//\u0301\n/.\u0301\n/\u0301\n/a",
    " .\n/\u0301/\u0301\n/.\n/'s a/\n's",
    "1234567 12 123 1234 ٣٣٣٣ ½1Ⅷ2 1a1234",
    "\x85\x1c \x85\n\x1c\n\x85a \x1ca \x85.",
    "   a  \t\t  b\n\n\n  \n \t\n  c \n\r\n\r d   ",
    "\n  \n  ",
    " \t\n",
    "a.\n \n b",
    "a.\n\n",
    "a \n\n .\n \t",
    ".\n \n \n a",
    "\t.a \t.\ta",
    "",
    " ",
    "\n",
    "'",
    "'s",
    "1",
    "\u0301",
]


def forms(backend):
    """The tables of kernels to try a backend with."""
    return [{}, backend.kernels] if backend.kernels else [{}]


def found(text, pattern, backend):
    """The words between the starts that a backend finds."""
    points = backend.xp.from_numpy(code_points(text))
    starts = np.flatnonzero(backend.xp.to_numpy(word_starts(points, pattern))).tolist()
    return [text[start:end] for start, end in itertools.pairwise([*starts, len(text)])]


def difference(text, pattern, backend):
    """The first word that differs from the pattern's, with those around it; None where none does."""
    pairs = list(itertools.zip_longest(found(text, pattern, backend), words_by_pattern(text, pattern)))
    return next((pairs[max(i - 2, 0) : i + 3] for i, (ours, its) in enumerate(pairs) if ours != its), None)


def kinds(text):
    """U, L, C, M, N, S or O for each character: what the definitions are told of Unicode."""
    letters = {UPPER: "U", LOWER: "L", CASELESS: "C", MARK: "M", NUMBER: "N"}
    found = kind_table(load("numpy").xp)[code_points(text)].tolist()
    return "".join("S" if is_white(kind) else letters.get(kind, "O") for kind in found)


@pytest.mark.parametrize("name", DISTINCT)
@given(data=st.data())
def test_words_found_by_arrays_equal_those_of_the_pattern(hard_text, backend, name, data):
    text = data.draw(hard_text | st.lists(st.sampled_from(DECIDING), max_size=16).map("".join))
    for table in forms(backend):
        with kernels(backend, table):
            words = found(text, PATTERNS[name], backend)
            assert words == words_by_pattern(text, PATTERNS[name])
            assert "".join(words) == text


@pytest.mark.parametrize("name", PATTERNS)
@given(data=st.data())
def test_words_equal_their_definition(hard_text, name, data):
    text = data.draw(hard_text | st.lists(st.sampled_from(DECIDING), max_size=16).map("".join))
    define = definitions()
    op = {"nanochat": "llama3", "qwen2": "llama3"}.get(name, name)
    expected = define["cut"](text, define[f"{op}_word_starts"](text, kinds(text), *DIGITS.get(name, [])))
    assert words_by_pattern(text, PATTERNS[name]) == expected
    assert found(text, PATTERNS[name], load("numpy")) == expected


@pytest.mark.parametrize("pattern", SAME)
@given(data=st.data())
def test_a_pattern_spelled_otherwise_finds_the_same_words(hard_text, pattern, data):
    text = data.draw(hard_text | st.lists(st.sampled_from(DECIDING), max_size=16).map("".join))
    assert words_by_pattern(text, pattern) == words_by_pattern(text, SAME[pattern])
    assert found(text, pattern, load("numpy")) == words_by_pattern(text, pattern)


@pytest.mark.parametrize("name", DISTINCT)
def test_strings_made_to_mislead_split_alike(backend, name):
    whole = "".join(ADVERSARIAL)
    for table in forms(backend):
        with kernels(backend, table):
            for text in (*ADVERSARIAL, whole, whole[::-1], "x ".join(ADVERSARIAL)):
                assert found(text, PATTERNS[name], backend) == words_by_pattern(text, PATTERNS[name])


@pytest.mark.parametrize("name", DISTINCT)
def test_a_long_text_of_the_deciding_characters_splits_alike(backend, name):
    draw = random.Random(0)
    size = 30_000 if backend.kernels else 2_000
    for table in forms(backend):
        with kernels(backend, table):
            for characters in (
                DECIDING,
                DECIDING[:12],
                [" ", "\n", "/", ".", "\u0301", "a"],
                ["A", "a", "中", "\u0301", "'s", "'"],
            ):
                text = "".join(draw.choice(characters) for _ in range(size))
                assert difference(text, PATTERNS[name], backend) is None


@pytest.mark.parametrize("name", DISTINCT)
def test_every_character_splits_alike_between_others(name):
    """Those of Unicode's first two planes, behind a sign and before a letter, and the other way round."""
    points = [point for point in range(0x20000) if not 0xD800 <= point < 0xE000]
    text = "".join(f".{chr(point)}a" if point % 2 else f"A{chr(point)} " for point in points)
    assert difference(text, PATTERNS[name], load("numpy")) is None


@pytest.mark.parametrize("name", PATTERNS)
def test_source_code_and_prose_split_alike(name, topics):
    library = Path(sysconfig.get_paths()["stdlib"])
    for text in (topics, *((library / file).read_text(encoding="utf-8") for file in ("textwrap.py", "this.py", "typing.py"))):
        assert difference(text, PATTERNS[name], load("numpy")) is None


@pytest.mark.parametrize("name", PATTERNS)
def test_shakespeare_splits_alike(name, data):
    text = (data / "tinyshakespeare.txt").read_text(encoding="utf-8")
    assert difference(text, PATTERNS[name], load("numpy")) is None


@pytest.mark.oracle
@pytest.mark.parametrize("name", PATTERNS)
def test_the_standard_library_splits_alike(name):
    library = Path(sysconfig.get_paths()["stdlib"])
    for path in library.glob("*.py"):
        text = path.read_text(encoding="utf-8", errors="replace")
        assert difference(text, PATTERNS[name], load("numpy")) is None, path


def test_the_known_patterns_have_array_forms_and_others_are_refused():
    assert set(FORMS) == {*PATTERNS.values(), *SAME}
    assert all(map(has_array_form, FORMS))
    for pattern in (r"\S+", (GPT2, CL100K), (GPT2,)):
        assert not has_array_form(pattern)
        with pytest.raises(ValueError, match="has no array form; find its words by words"):
            word_starts(code_points("a"), pattern)


@pytest.mark.parametrize("name", DISTINCT)
def test_starts_are_truth_values_of_the_points_backend(backend, name):
    for text in ("", "a", "a b"):
        starts = word_starts(backend.xp.from_numpy(code_points(text)), PATTERNS[name])
        assert isinstance(starts, backend.array_type)
        assert starts.dtype == backend.xp.bool
        assert starts.shape == (len(text),)
