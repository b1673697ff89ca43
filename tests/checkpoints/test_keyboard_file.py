"""Keyboards in files: the same after saving, small as promised, and refused where damaged."""

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.checkpoints import keyboard_file, tensor_file
from refllm.models import back_off, pruning, stupid_backoff
from refllm.models.keyboard import SPLITS, Keyboard, counted, kneser_ney, vocabulary


def sentences(n=300):
    rng = random.Random(0)
    names = [f"w{i}" for i in range(40)]
    return [[names[int(rng.paretovariate(0.6)) % 40] for _ in range(8)] for _ in range(n)]


@pytest.fixture(scope="module")
def keyboard():
    words = vocabulary(sentences())
    return Keyboard(words, kneser_ney(counted(sentences(), words, 3)), "spaces")


def equal(a, b):
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def test_a_keyboard_saved_with_float32_is_the_same_to_float32(keyboard, tmp_path):
    keyboard_file.save(tmp_path / "kb", keyboard, quantised=False)
    read = keyboard_file.load(tmp_path / "kb")
    assert (read.words, read.split, read.table.begin) == (keyboard.words, "spaces", 1)
    assert equal(read.table.keys, keyboard.table.keys)
    for name in ("scores", "weights"):
        assert equal(getattr(read.table, name), [x.astype(np.float32) for x in getattr(keyboard.table, name)])


def test_a_keyboard_read_and_saved_again_is_the_same_file(keyboard, tmp_path):
    for quantised in (True, False):
        keyboard_file.save(tmp_path / "a", keyboard, quantised)
        keyboard_file.save(tmp_path / "b", keyboard_file.load(tmp_path / "a"), quantised)
        assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_stupid_backoff_keeps_its_price_for_histories_never_seen(tmp_path):
    words = vocabulary(sentences())
    table = stupid_backoff.from_counts(counted(sentences(), words, 3))
    keyboard_file.save(tmp_path / "kb", Keyboard(words, table))
    read = keyboard_file.load(tmp_path / "kb")
    assert read.table.absent == table.absent
    assert read.split == "words"


@given(st.lists(st.floats(-98, 0, width=32), min_size=1, max_size=60), st.booleans(), st.booleans())
def test_eight_bits_are_exact_for_few_numbers_and_order_many(numbers, many, zero):
    x = np.array(numbers, np.float32)
    if many:
        x = np.concatenate([x, np.linspace(-5, 0, 3000, dtype=np.float32)])
    x = np.append(x, np.float32(-99)) if zero else x
    places, values = keyboard_file.quantise(x)
    assert places.dtype == np.uint8
    assert values.size <= 256
    assert np.all(np.diff(values) > 0)
    back = values[places]
    finite = x[x > -99].astype(np.float64)
    assert np.all(np.abs(back - x)[x > -99] <= np.ptp(finite) / 255 + np.finfo(np.float32).eps * np.abs(finite))
    assert np.array_equal(back == -99, x == -99)
    if np.unique(x).size <= 256:
        np.testing.assert_array_equal(back, x)


def test_the_values_are_the_means_of_bins_of_equal_width():
    x = np.random.default_rng(0).uniform(-4, -2, size=9000).astype(np.float32)
    x[:2] = -4, -2
    places, values = keyboard_file.quantise(x)
    edges = np.linspace(-4, -2, 257)
    means = [x[(low <= x) & (x < high)].astype(np.float64).mean() for low, high in zip(edges, [*edges[1:-1], 0], strict=False)]
    np.testing.assert_array_equal(values, np.array(means, np.float32))


@pytest.mark.parametrize("quantised", [True, False])
@pytest.mark.parametrize("n_bytes", [10_000, 11_000, 13_000, 10**6])
def test_a_pruned_keyboard_is_not_larger_than_its_budget(keyboard, tmp_path, n_bytes, quantised):
    table = keyboard.table
    fits = keyboard_file.fits(keyboard.words, table, n_bytes, quantised)
    pruned = pruning.pruned(table, fits)
    keyboard_file.save(tmp_path / "kb", Keyboard(keyboard.words, pruned), quantised)
    assert (tmp_path / "kb").stat().st_size <= n_bytes
    assert sum(pruned.sizes) > table.vocab_size
    assert n_bytes == 10**6 or sum(pruned.sizes) < sum(table.sizes)


def changed(keyboard, tmp_path, name, change):
    arrays = keyboard_file.arrays(keyboard, quantised=True)
    arrays[name] = change(arrays[name])
    tensor_file.write(tmp_path / "kb", {n: tensor_file.of_array(a) for n, a in arrays.items() if a is not None})
    return tmp_path / "kb"


def last(x, value):
    return np.append(x[:-1], np.asarray(value, x.dtype))


@pytest.mark.parametrize(
    ("name", "change", "says"),
    [
        ("settings", lambda x: None, "it has no settings"),
        ("settings", lambda x: x[:-1], "or damaged"),
        ("settings", lambda x: np.frombuffer(b'{"format": "another"}', np.uint8), "settings are not those of this format"),
        ("vocabulary", lambda x: x[5:], "not in list|lacks"),
        ("vocabulary", lambda x: np.frombuffer(x.tobytes().replace(b"w1\n", b"w2\n"), np.uint8), "different words"),
        ("1.scores", lambda x: x[:-1], "1.scores does not hold"),
        ("1.scores", lambda x: x.astype(np.int64), "it has no 1.scores, or not as one is stored"),
        ("1.scores.values", lambda x: last(x, np.nan), "1.scores does not hold"),
        ("1.scores.values", lambda x: last(x, 1), "1.scores does not hold"),
        ("2.scores.values", lambda x: x[:3], "2.scores points beyond its values"),
        ("2.weights", lambda x: None, "it has no 2.weights"),
        ("2.words", lambda x: x[::-1].copy(), "2.words are not ascending words"),
        ("3.words", lambda x: last(x, 60_000), "3.words are not ascending words"),
        ("3.words", lambda x: x[:-1], "3.runs does not tell"),
        ("3.runs", lambda x: x[:-1], "3.runs does not tell"),
    ],
)
def test_a_damaged_keyboard_is_refused_in_one_sentence(keyboard, tmp_path, name, change, says):
    path = changed(keyboard, tmp_path, name, change)
    with pytest.raises(ValueError, match=says) as refused:
        keyboard_file.load(path)
    assert str(path) in str(refused.value)
    assert str(refused.value).endswith(".")


@given(st.data())
def test_damaged_bytes_are_read_or_refused_and_never_crash(keyboard, tmp_path_factory, data):
    path = tmp_path_factory.mktemp("kb") / "kb"
    keyboard_file.save(path, keyboard)
    whole = bytearray(path.read_bytes())
    header = 8 + int.from_bytes(whole[:8], "little")
    at = data.draw(st.integers(0, header - 1) | st.integers(header, len(whole) - 1))
    whole[at] = data.draw(st.integers(0, 255))
    path.write_bytes(whole[: data.draw(st.just(len(whole)) | st.integers(0, len(whole)))])
    try:
        read = keyboard_file.load(path)
    except ValueError as error:
        refusal = str(error)
    else:
        refusal = None
        assert len(read.suggest("w1 w2 ", 5)) <= 5
    assert refusal is None or str(path) in refusal


def test_eight_bits_cost_little(keyboard, tmp_path):
    keyboard_file.save(tmp_path / "kb", keyboard)
    read = keyboard_file.load(tmp_path / "kb")
    ids = np.concatenate([keyboard.sentence(" ".join(words)) for words in sentences()])
    said = ids != keyboard.ids["<s>"]
    before, after = (back_off.perplexity(back_off.log_probabilities(k.table, ids)[said]) for k in (keyboard, read))
    table = keyboard.table
    widest = max(np.ptp(x[np.isfinite(x)]) / 255 for x in (*table.scores, *table.weights))
    assert (
        0 < abs(np.log(after / before)) <= np.log(10) * widest * table.order
    )  # each of at most 3 numbers moves by a bin at most


def test_a_word_with_a_line_break_is_refused(keyboard, tmp_path):
    broken = Keyboard([*keyboard.words[:-1], "a\nb"], keyboard.table)
    with pytest.raises(ValueError, match="line break"):
        keyboard_file.save(tmp_path / "kb", broken)
    assert SPLITS["spaces"]("a\nb") == ["a", "b"]
