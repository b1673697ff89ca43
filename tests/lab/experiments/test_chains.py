"""Accuracy against length."""

import numpy as np
import pytest

from refllm.evaluation.metrics import wilson
from refllm.lab.experiment import conduct
from refllm.lab.experiments import chains
from refllm.lab.verdict import FAILS, HOLDS, UNDECIDABLE

TINY = chains.Settings(widths=(8, 4), counts=(4, 2), sums=(1, 3), seeds=2, steps=12, batch=8, items=100)


def test_every_task_and_length_is_learned_by_every_size_and_seed(tmp_path):
    result = conduct(chains, TINY, tmp_path, report=lambda line: None)
    rows = result["tables"]["accuracy"]
    lengths = [("counting", 2), ("counting", 4), ("running sum", 1), ("running sum", 3)]
    wanted = [(task, width, length, s) for task, length in lengths for width in (4, 8) for s in (0, 1)]
    assert sorted((row["task"], row["width"], row["length"], row["seed"]) for row in rows) == sorted(wanted)
    assert [(row["task"], row["width"]) for row in rows] == [(t, w) for t in chains.TASKS for w in (4, 8) for _ in range(4)]
    assert [row["length"] for row in rows[:4]] == [2, 2, 4, 4]
    answers = chains.task_of(chains.Job("counting", 2, 4, 0, TINY)).items(100).tokens[:, -1]
    assert rows[0]["chance"] == np.bincount(answers).max() / 100
    for row in rows:
        assert row["low"] <= row["accuracy"] <= row["high"]
        assert row["items"] == 100
        assert row["chance"] < 0.6
    for one, other in zip(rows[::2], rows[1::2], strict=True):
        assert one["chance"] == other["chance"]  # the same questions for all
        assert one["nats_per_answer"] != other["nats_per_answer"]
    assert rows[0]["chance"] > rows[2]["chance"]  # of two marks 0, 1 or 2 are a's; of four more counts are likely
    assert rows[0]["parameters"] == rows[2]["parameters"] - 2 * 4  # but for two positions
    lengths = result["tables"]["lengths"]
    assert [row["length"] for row in lengths] == [2, 4, 2, 4, 1, 3, 1, 3]
    assert [row["width"] for row in lengths] == [4, 4, 8, 8, 4, 4, 8, 8]
    assert [row["chance"] for row in lengths] == [row["chance"] for row in rows[::2]]
    shares = [(one["accuracy"], other["accuracy"]) for one, other in zip(rows[::2], rows[1::2], strict=True)]
    assert [(row["least"], row["greatest"]) for row in lengths] == [(min(pair), max(pair)) for pair in shares]
    assert [row["accuracy"] for row in lengths] == pytest.approx([sum(pair) / 2 for pair in shares])
    assert (tmp_path / "chains" / "accuracy_and_length.png").is_file()
    assert chains.judge_chains({"chains": result}).low is not None


def test_two_symbols_are_learned_at_once():
    settings = chains.Settings(steps=150, batch=32, items=300)
    row = chains.learned(chains.Job("counting", 2, 12, 0, settings))
    assert row["accuracy"] > 0.95
    assert row["nats_per_answer"] < 0.5


def result(accuracy):
    """Rows of two sizes with the accuracies by task and length of the wider's seeds; the narrower knows nothing. Chance: .1."""
    rows = []
    for width in (8, 16):
        for task, lengths in accuracy.items():
            for length, shares in lengths.items():
                for seed, share in enumerate(shares):
                    p = wilson(round(1000 * share) if width == 16 else 100, 1000)
                    about = {"task": task, "width": width, "parameters": 100 * width, "length": length, "seed": seed}
                    rows.append(about | {"chance": 0.1, "accuracy": p.value, "low": p.low, "high": p.high})
    return {"chains": {"tables": {"accuracy": rows}}}


@pytest.mark.parametrize(
    ("counting", "sums", "verdict"),
    [
        ((1.0, [0.5, 0.4]), (1.0, [0.1, 0.2]), HOLDS),
        ((1.0, [0.1, 0.1]), (1.0, [0.5, 0.4]), HOLDS),
        ((1.0, [0.9, 0.8]), (1.0, [0.1, 0.1]), FAILS),
        ((1.0, [0.9, 0.4]), (1.0, [0.1, 0.1]), UNDECIDABLE),  # seeds differ
        ((1.0, [0.54, 0.4]), (1.0, [0.1, 0.1]), UNDECIDABLE),  # the interval holds the middle, .55
        ((0.5, [0.1, 0.1]), (1.0, [0.1, 0.1]), UNDECIDABLE),  # short ones are as hard: length is not what is
        ((0.55, [0.1, 0.1]), (1.0, [0.1, 0.1]), UNDECIDABLE),
        ((0.5, [0.9, 0.9]), (1.0, [0.1, 0.1]), FAILS),
    ],
)
def test_length_must_be_what_is_hard_for_every_seed(counting, sums, verdict):
    planted = {
        task: {32: long, 4: [short] * len(long)} for task, (short, long) in (("counting", counting), ("running sum", sums))
    }
    finding = chains.judge_chains(result(planted))
    assert finding.verdict == verdict
    better = max(counting[1], sums[1], key=sum)
    assert finding.value == pytest.approx(sum(better) / 2)
    assert (finding.low, finding.high) == pytest.approx(
        (wilson(round(1000 * min(better)), 1000).low, wilson(round(1000 * max(better)), 1000).high)
    )
    assert f"counting {counting[0]:.2f} at 4, {sum(counting[1]) / 2:.2f} at 32 (hard below 0.55)" in finding.why


@pytest.mark.parametrize(
    ("settings", "says"),
    [({"counts": (4,)}, "counts=.4,. cannot show a fall"), ({"sums": (0, 4)}, "sums=.0, 4. must be")],
)
def test_lengths_that_show_no_fall_are_refused(settings, says):
    with pytest.raises(ValueError, match=says):
        chains.Settings(**settings)
