"""Accuracy against length."""

import pytest

from refllm.evaluation.metrics import wilson
from refllm.lab import chains
from refllm.lab.experiment import conduct
from refllm.lab.verdict import FAILS, HOLDS, UNDECIDABLE

TINY = chains.Settings(widths=(8,), counts=(2, 4), sums=(1, 3), steps=12, batch=8, items=100)


def test_every_task_and_length_is_learned_by_every_size(tmp_path):
    result = conduct(chains, TINY, tmp_path, report=lambda line: None)
    rows = result["tables"]["accuracy"]
    assert [(row["task"], row["length"]) for row in rows] == [
        ("counting", 2),
        ("counting", 4),
        ("running sum", 1),
        ("running sum", 3),
    ]
    for row in rows:
        assert row["low"] <= row["accuracy"] <= row["high"]
        assert row["items"] == 100
        assert row["chance"] < 0.6
    assert rows[0]["chance"] > rows[1]["chance"]  # of two marks 0, 1 or 2 are a's; of four more counts are likely
    assert (tmp_path / "chains" / "accuracy_and_length.png").is_file()
    assert chains.judge_chains({"chains": result}).low is not None


def test_two_symbols_are_learned_at_once():
    row = chains.learned(chains.Job("counting", 2, 12, chains.Settings(steps=150, batch=32, items=300)))
    assert row["accuracy"] > 0.95
    assert row["nats_per_answer"] < 0.5


def result(accuracy):
    """Rows of two sizes with the accuracies by task and length, of the wider; the narrower knows nothing."""
    rows = []
    for width in (8, 16):
        for task, lengths in accuracy.items():
            for length, share in lengths.items():
                p = wilson(round(1000 * share) if width == 16 else 100, 1000)
                about = {"task": task, "width": width, "parameters": 100 * width, "length": length, "chance": 0.1}
                rows.append(about | {"accuracy": p.value, "low": p.low, "high": p.high, "items": p.n})
    return {"chains": {"tables": {"accuracy": rows}}}


@pytest.mark.parametrize(
    ("counting", "sums", "verdict"),
    [
        ((1.0, 0.5), (1.0, 0.1), HOLDS),
        ((1.0, 0.1), (1.0, 0.5), HOLDS),
        ((1.0, 0.99), (1.0, 0.1), FAILS),
        ((1.0, 0.9), (1.0, 0.1), UNDECIDABLE),
        ((0.1, 0.1), (0.1, 0.1), UNDECIDABLE),  # short ones are as hard: length is not what is
    ],
)
def test_length_must_be_what_is_hard(counting, sums, verdict):
    planted = {"counting": dict(zip((4, 32), counting, strict=True)), "running sum": dict(zip((4, 32), sums, strict=True))}
    finding = chains.judge_chains(result(planted))
    assert finding.verdict == verdict
    assert finding.value == pytest.approx(max(counting[1], sums[1]))
