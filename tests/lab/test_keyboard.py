"""N-gram tables and transformers on the same characters."""

import numpy as np
import pytest

from refllm.lab import corpus, keyboard, text_models
from refllm.lab.experiment import conduct
from refllm.lab.verdict import FAILS, HOLDS, UNDECIDABLE
from refllm.models import ngram

TINY = keyboard.Settings(
    orders=(1, 2, 4), widths=(4, 8), characters=(512, 1024, 4096, 10**9), batch=4, context=16, piece=32, windows=12, resamples=20
)


@pytest.fixture(scope="module")
def conducted(tmp_path_factory, text):
    folder = tmp_path_factory.mktemp("lab")
    settings = keyboard.Settings(**{**vars(TINY), "text": text})
    return conduct(keyboard, settings, folder, report=lambda line: None), folder / "keyboard", settings


def test_both_kinds_are_judged_after_the_same_characters(conducted):
    result, place, _ = conducted
    rows = result["tables"]["models"]
    for D in (512, 1024, 4096):  # not what the text does not have
        kinds = [(row["kind"], row["made_with"]) for row in rows if row["characters"] == D]
        tables = [("n-gram", f"order {n}") for n in (1, 2, 4)]
        assert kinds == [*tables, ("transformer", "width 4"), ("transformer", "width 8")]
    assert len(rows) == 15
    for found in result["tables"]["crossings"]:
        for kind, best in (("n-gram", "best_table"), ("transformer", "best_transformer")):
            assert found[best] == pytest.approx(
                min(r["loss"] for r in rows if (r["kind"], r["characters"]) == (kind, found["characters"]))
            )
    assert "window_losses" not in rows[0]
    assert all(0 <= row["first"] <= row["among_three"] <= 1 and 0 <= row["savings"] < 1 for row in rows)
    assert {p.name for p in place.glob("*.png")} == {"keyboard_and_transformer.png", "keystroke_savings.png"}


def test_table_losses_and_sizes_are_those_of_the_ngram_model(conducted):
    result, _, settings = conducted
    text = corpus.load(settings.text)
    read = text_models.pieces(text.train, 32, 0).ravel()[:1024]
    tokens, targets = corpus.evaluation(text.held_out, count=12, context=16)
    for order in (1, 2, 4):
        model = ngram.train(read, order, text.vocab_size)
        logs = [ngram.log_probabilities(model, row, begin[:1]) for begin, row in zip(tokens, targets, strict=True)]
        (row,) = (r for r in result["tables"]["models"] if (r["made_with"], r["characters"]) == (f"order {order}", 1024))
        assert row["loss"] == pytest.approx(-np.mean(logs), rel=1e-12)
        assert row["size"] == sum(len(level.keys) - 1 for level in model.levels)


def test_the_first_characters_are_read_once_before_any_later_one():
    order = keyboard.reading_order((64, 256, 1024), 8, seed=3)
    assert sorted(order[:8]) == list(range(0, 64, 8))
    assert sorted(order[:32]) == list(range(0, 256, 8))
    assert sorted(order) == list(range(0, 1024, 8))
    assert list(order) != sorted(order)


def planted(table, transformer, spread=0.0):
    """Rows of three tables and three transformers at sizes 10, 100, 1000 whose windows have these losses, and a spread."""
    windows = np.array([-1.0, 1.0] * 50) * spread
    kinds = ((keyboard.TABLE, table, 1), (keyboard.TRANSFORMER, transformer, -1))
    return [
        {"kind": kind, "size": 10 ** (i + 1), "characters": 7, "window_losses": (loss + sign * windows).tolist()}
        for kind, losses, sign in kinds
        for i, loss in enumerate(losses)
    ]


@pytest.mark.parametrize(
    ("table", "transformer", "spread", "crossing", "verdict"),
    [
        ((4, 3, 1), (3, 2.5, 2), 0.01, 10 ** (2 + 0.5 / 1.5), HOLDS),
        ((2, 1.5, 1), (3, 2.5, 2), 0.01, keyboard.NOWHERE, HOLDS),
        ((4, 3, 3), (3, 2.5, 2), 0.01, keyboard.NOWHERE, FAILS),
        ((4, 3, 2.01), (3, 2.5, 2), 1.0, keyboard.NOWHERE, UNDECIDABLE),
    ],
)
def test_a_planted_crossing_is_found_and_judged(table, transformer, spread, crossing, verdict):
    row = keyboard.cross(planted(table, transformer, spread), TINY)
    assert row["crossing"] == (crossing if isinstance(crossing, str) else pytest.approx(crossing))
    if not isinstance(crossing, str):
        assert row["low"] <= crossing <= row["high"]
    finding = keyboard.judge({"keyboard": {"tables": {"crossings": [row]}}})
    assert finding.verdict == verdict
    assert finding.value == (None if isinstance(crossing, str) else row["crossing"])


def test_a_text_too_short_for_any_table_is_refused(text):
    with pytest.raises(ValueError, match=r"characters to learn from; characters=\(1000000,\) ask for more"):
        keyboard.readable(corpus.load(text), keyboard.Settings(characters=(1000000,)))
    with pytest.raises(ValueError, match="must rise, each a multiple of batch · context = 64"):
        keyboard.readable(corpus.load(text), keyboard.Settings(characters=(100,), batch=4, context=16))
