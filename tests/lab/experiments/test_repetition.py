"""Texts that get stuck."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.lab.experiment import conduct
from refllm.lab.experiments import repetition
from refllm.lab.materials import corpus
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
    assert repetition.loops(np.tile(np.arange(repetition.PERIODS), 3))
    assert not repetition.loops(np.zeros(repetition.SPAN - 1))
    assert not repetition.loops(np.concatenate([np.zeros(50), np.arange(30)]))
    assert not repetition.loops(np.tile(np.arange(repetition.PERIODS + 1), 4))


def test_distinct_is_the_share_of_different_n_grams():
    assert repetition.distinct_share(np.arange(10)) == 1
    assert repetition.distinct_share(np.zeros(10)) == pytest.approx(1 / 7)
    assert repetition.distinct_share(np.array([1, 2, 1, 2, 1, 2]), 2) == pytest.approx(2 / 5)


def test_models_write_at_every_temperature(tmp_path, text_file):
    settings = repetition.Settings(
        widths=(8, 4), seeds=2, steps=30, context=64, temperatures=(1.0, 0.0), prompt=8, rows=6, text=str(text_file)
    )
    result = conduct(repetition, settings, tmp_path, report=lambda line: None)
    rows, sizes = result["tables"]["texts"], result["tables"]["sizes"]
    assert [(row["width"], row["seed"], row["temperature"]) for row in rows] == [
        (width, seed, t) for width in (4, 8) for seed in (0, 1) for t in (0.0, 1.0)
    ]
    assert [(row["width"], row["temperature"]) for row in sizes] == [(4, 0.0), (4, 1.0), (8, 0.0), (8, 1.0)]
    assert rows[0]["distinct_4"] < rows[1]["distinct_4"]  # hardly trained, the likeliest letter comes for ever
    assert rows[0]["loops"] > rows[1]["loops"]
    assert rows[1]["distinct_4"] != rows[3]["distinct_4"]  # another seed writes other texts
    assert rows[0]["loss"] != rows[2]["loss"]  # and is another model
    assert rows[0]["texts"] == 6
    assert result["numbers"]["real_text"]["loops"] == 0
    assert (tmp_path / "repetition" / "loops.png").is_file()
    assert "of real text 0 %" in repetition.judge_repetition({"repetition": result}).why


def test_a_model_of_a_seed_goes_on_from_the_beginnings_of_held_out_text(monkeypatch, text_file):
    asked = []

    def noted(name, function):
        def call(*arguments, **options):
            asked.append((name, arguments))
            return function(*arguments, **options)

        return call

    monkeypatch.setattr(repetition, "generate", noted("generate", repetition.generate))
    monkeypatch.setattr(repetition.text_models, "learned", noted("learned", repetition.text_models.learned))
    settings = repetition.Settings(widths=(4, 8), steps=1, context=64, temperatures=(0.5,), prompt=8, rows=6, text=str(text_file))
    found = repetition.written(repetition.Job(4, 2, settings))
    (_, learned), (_, generate) = asked
    assert learned[3] == generate[4] == 2
    windows = corpus.evaluation(corpus.load(text_file).held_out, count=6, context=64)[0]
    assert generate[1:3] == (windows[:, :8].tolist(), 56)
    assert generate[3].temperature == 0.5
    assert found["real"] == repetition.described(windows[:, 8:])


@pytest.fixture
def text_file(tmp_path):
    rng = np.random.default_rng(0)
    words = ["the", "cat", "dog", "tree", "sat", "ran", "on", "under", "mat"]
    path = tmp_path / "text.txt"
    path.write_text("\n".join(" ".join(rng.choice(words, 9)) + "." for _ in range(400)))
    return path


def result(*shares):
    """Texts of models by size: the shares that loop of its seeds, the same at both temperatures but for 0.1 each way."""
    rows = [
        {"parameters": 1000 * 2**i, "seed": seed, "temperature": t, "loops": share + 0.1 * (1 - 2 * t)}
        for i, of_size in enumerate(shares)
        for seed, share in enumerate(of_size)
        for t in (0.0, 1.0)
    ]
    return {"repetition": {"tables": {"texts": rows}, "numbers": {"real_text": {"loops": 0.02}}}}


@pytest.mark.parametrize(
    ("shares", "verdict"),
    [
        (((0.9, 0.85), (0.7, 0.72), (0.5, 0.55)), HOLDS),
        (((0.5, 0.55), (0.7, 0.72), (0.9, 0.85)), FAILS),
        (((0.6, 0.5), (0.9, 0.8), (0.5, 0.4)), UNDECIDABLE),
        (((0.5, 0.4), (0.9, 0.8), (0.6, 0.5)), UNDECIDABLE),
        (((0.2, 0.2), (0.2, 0.2)), UNDECIDABLE),
    ],
)
def test_loops_must_be_rarer_with_every_doubling(shares, verdict):
    finding = repetition.judge_repetition(result(*shares))
    assert finding.verdict == verdict
    assert finding.low <= finding.value <= finding.high
    assert f"{100 * sum(shares[-1]) / 2:.0f} % at {1000 * 2 ** (len(shares) - 1):,}; of real text 2 %" in finding.why


def test_the_slope_and_its_interval_are_those_of_regression():
    """Against y = 1 − x/4 with errors +, −, −, + of a sixteenth, over x = 0 … 3: the errors' sum of squares is 4/256."""
    y = [1 + 1 / 16, 0.75 - 1 / 16, 0.5 - 1 / 16, 0.25 + 1 / 16]
    slope, low, high = repetition.per_doubling([1, 2, 4, 8], y)
    assert slope == pytest.approx(-0.25)
    reach = 4.302653 * (4 / 256 / 2 / 5) ** 0.5  # Student's t for two degrees of freedom
    assert (low, high) == pytest.approx((slope - reach, slope + reach))


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"widths": (12,)}, "a slope takes two widths"),
        ({"widths": (12, 12)}, "each of them once"),
        ({"temperatures": (-1.0, 0.0)}, "temperatures=.-1"),
        ({"widths": (12, 24), "seeds": 1}, "its error three models"),
        ({"prompt": 105}, "1 … context − 24 = 104"),
        ({"prompt": 0}, "prompt=0"),
    ],
)
def test_settings_that_leave_nothing_to_measure_are_refused(settings, says):
    with pytest.raises(ValueError, match=says):
        repetition.Settings(**settings)
