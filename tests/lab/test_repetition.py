"""Texts that get stuck."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.evaluation.metrics import wilson
from refllm.lab import repetition
from refllm.lab.experiment import conduct
from refllm.lab.verdict import FAILS, HOLDS, UNDECIDABLE


@given(st.integers(1, repetition.PERIODS), st.integers(0, 40), st.integers(0, 10**6))
def test_a_text_that_ends_in_a_period_loops(period, before, seed):
    rng = np.random.default_rng(seed)
    unit = rng.integers(0, 50, period)
    span = max(repetition.SPAN, 3 * period)
    text = np.concatenate([rng.integers(0, 50, before), np.tile(unit, -(-span // period))])
    assert repetition.loops(text)
    changed = text.copy()
    changed[-1] = 99
    assert not repetition.loops(changed)


def test_a_period_must_come_three_times_and_last():
    unit = np.arange(12)
    assert repetition.loops(np.tile(unit, 3))
    assert not repetition.loops(np.tile(unit, 3)[1:])  # one short of three
    assert not repetition.loops(np.zeros(repetition.SPAN - 1))
    assert not repetition.loops(np.concatenate([np.zeros(50), np.arange(30)]))
    assert not repetition.loops(np.tile(np.arange(repetition.PERIODS + 1), 4))


def test_distinct_is_the_share_of_different_n_grams():
    assert repetition.distinct_share(np.arange(10)) == 1
    assert repetition.distinct_share(np.zeros(10)) == pytest.approx(1 / 7)
    assert repetition.distinct_share(np.array([1, 2, 1, 2, 1, 2]), 2) == pytest.approx(2 / 5)


def test_models_write_at_every_temperature(tmp_path, text_file):
    settings = repetition.Settings(
        widths=(4, 8), steps=30, context=64, temperatures=(0.0, 1.0), prompt=8, rows=6, text=str(text_file)
    )
    result = conduct(repetition, settings, tmp_path, report=lambda line: None)
    rows = result["tables"]["texts"]
    assert [(row["width"], row["temperature"]) for row in rows] == [(4, 0.0), (4, 1.0), (8, 0.0), (8, 1.0)]
    assert rows[0]["distinct_4"] < rows[1]["distinct_4"]  # hardly trained, the likeliest letter comes for ever
    assert rows[0]["loops"] > rows[1]["loops"]
    assert result["numbers"]["real_text"]["loops"] == 0
    assert (tmp_path / "repetition" / "loops.png").is_file()
    assert "in real text 0 %" in repetition.judge_repetition({"repetition": result}).why


@pytest.fixture
def text_file(tmp_path):
    rng = np.random.default_rng(0)
    words = ["the", "cat", "dog", "tree", "sat", "ran", "on", "under", "mat"]
    path = tmp_path / "text.txt"
    path.write_text("\n".join(" ".join(rng.choice(words, 9)) + "." for _ in range(400)))
    return path


@pytest.mark.parametrize(
    ("shares", "verdict"),
    [
        ((0.9, 0.7, 0.5), HOLDS),
        ((0.9, 0.5, 0.52), UNDECIDABLE),
        ((0.9, 0.2, 0.5), FAILS),
        ((0.5, 0.9), FAILS),
        ((0.0, 0.0), UNDECIDABLE),
    ],
)
def test_loops_must_be_rarer_than_in_every_smaller_model(shares, verdict):
    rows = [
        {"parameters": 1000 * i, "temperature": t, "loops": share, "texts": 100}
        for t in (0.0, 1.0)
        for i, share in enumerate(shares, start=1)
    ]
    finding = repetition.judge_repetition({"repetition": {"tables": {"texts": rows}, "numbers": {"real_text": {"loops": 0.0}}}})
    assert finding.verdict == verdict
    assert finding.value == pytest.approx(min(shares[:-1]) - shares[-1])
    assert finding.low <= finding.value <= finding.high


def test_a_difference_has_newcombes_interval():
    """His example, 56/70 against 48/80."""
    value, low, high = repetition.difference(wilson(56, 70), wilson(48, 80))
    assert value == pytest.approx(0.2)
    assert (low, high) == pytest.approx((0.0524, 0.3339), abs=1e-4)
