"""N-gram tables and transformers on the same characters."""

import numpy as np
import pytest

from refllm.lab.experiment import conduct
from refllm.lab.experiments import keyboard
from refllm.lab.materials import corpus, text_models
from refllm.lab.running.learn import Snapshot
from refllm.lab.verdict import FAILS, HOLDS, UNDECIDABLE
from refllm.models import llama, ngram

TINY = keyboard.Settings(
    orders=(1, 2, 4),
    widths=(4, 8),
    characters=(512, 1024, 4096, 10**9),
    batch=4,
    context=16,
    seeds=2,
    piece=32,
    windows=12,
    resamples=20,
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
        assert kinds == [*tables, *([("transformer", "width 4")] * 2), *([("transformer", "width 8")] * 2)]
    assert len(rows) == 21
    for found in result["tables"]["crossings"]:
        mine = [r for r in rows if r["characters"] == found["characters"]]
        by_width = [np.mean([r["loss"] for r in mine if r["made_with"] == f"width {d}"]) for d in (4, 8)]
        assert found["best_transformer"] == pytest.approx(min(by_width))
        assert found["best_table"] == pytest.approx(min(r["loss"] for r in mine if r["kind"] == "n-gram"))
        assert found["gap_low"] < found["gap"] == found["best_table"] - found["best_transformer"] < found["gap_high"]
    losses = {(r["seed"], r["loss"]) for r in rows if (r["made_with"], r["characters"]) == ("width 4", 4096)}
    assert {seed for seed, _ in losses} == {0, 1}
    assert len({loss for _, loss in losses}) == 2
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


def test_a_transformer_reads_in_the_order_of_its_seed_and_is_judged_by_its_mean_weights(monkeypatch, text):
    settings, read = keyboard.Settings(**{**vars(TINY), "text": text}), []

    def learned(config, batch, context, seed, batch_at, steps):
        read.append((seed, np.concatenate([batch_at(step)[0] for step in range(steps[-1])])))
        yield Snapshot(steps[-1], 1024, {}, llama.initialise(config, 0))

    monkeypatch.setattr(text_models, "learned", learned)
    characters = text_models.pieces(corpus.load(text).train, 32, 0).ravel()
    for seed in (0, 5):
        keyboard.measured(keyboard.Job("transformer", 4, seed, (512, 1024), settings))
        order = keyboard.reading_order((512, 1024), 16, seed)
        assert read[-1][0] == seed
        np.testing.assert_array_equal(read[-1][1], corpus.windows(characters, order, 16)[0])


def planted(by_characters, spread=0.0):
    """Rows of tables and transformers (two seeds) at sizes 10, 100, 1000, whose windows have these losses and spread."""
    windows = np.array([-1.0, 1.0] * 50) * spread
    return [
        {
            "kind": kind,
            "size": 10 ** (i + 1),
            "seed": seed,
            "characters": D,
            "window_losses": (loss + sign * windows + (seed - 0.5) * (kind == "transformer") * spread / 10).tolist(),
        }
        for D, both in by_characters.items()
        for kind, losses, sign in zip(("n-gram", "transformer"), both, (1, -1), strict=True)
        for i, loss in enumerate(losses)
        for seed in ((0,) if kind == "n-gram" else (0, 1))
    ]


AHEAD, BEHIND, CROSSED = ((2, 1.5, 1), (3, 2.5, 2)), ((4, 3, 3), (3, 2.5, 2)), ((4, 3, 1), (3, 2.5, 2))


def judged(by_characters, spread=0.01):
    crossings, numbers = keyboard.compared(planted(by_characters, spread), TINY)
    return crossings, keyboard.judge({"keyboard": {"tables": {"crossings": crossings}, "numbers": numbers}})


@pytest.mark.parametrize(
    ("fewest", "most", "spread", "verdict"),
    [
        (AHEAD, BEHIND, 0.01, HOLDS),
        (CROSSED, BEHIND, 0.01, HOLDS),
        (BEHIND, BEHIND, 0.01, FAILS),
        (AHEAD, CROSSED, 0.01, UNDECIDABLE),  # the best table still leads
        (BEHIND, CROSSED, 0.01, FAILS),
        (((4, 3, 2.01), (3, 2.5, 2)), BEHIND, 1.0, UNDECIDABLE),
        (AHEAD, ((4, 3, 2.01), (3, 2.5, 2)), 1.0, UNDECIDABLE),
    ],
)
def test_the_claim_is_judged_at_both_ends_of_the_scale(fewest, most, spread, verdict):
    assert judged({7: fewest, 70: most}, spread)[1].verdict == verdict


def test_planted_crossings_are_found_along_sizes_and_along_characters():
    rows, finding = judged({7: AHEAD, 14: CROSSED, 56: BEHIND})
    assert [row["crossing_size"] for row in rows] == [keyboard.NOWHERE, pytest.approx(10 ** (2 + 0.5 / 1.5)), keyboard.NOWHERE]
    assert rows[1]["low"] <= rows[1]["crossing_size"] <= rows[1]["high"]
    assert [row["gap"] for row in rows] == pytest.approx([-1, -1, 1])
    assert [row["transformer_ahead"] for row in rows] == [0, 0, 1]
    assert (rows[0]["smallest"], rows[0]["largest"]) == pytest.approx((10, 1000))
    assert finding.value == pytest.approx(28)  # half-way from 14 to 56 in ln D
    assert finding.low <= 28 <= finding.high
    assert finding.unit == "characters"
    assert (
        "losses of 1.000 and 2.000 after 7, 3.000 and 2.000 after 56 characters; at equal size they cross at 215 after 14."
        in finding.why
    )


def test_tables_that_lead_throughout_cross_nowhere():
    rows, finding = judged({7: AHEAD, 56: AHEAD})
    assert finding[:3] == (None, None, None)
    assert "cross nowhere in this range" in finding.why


def test_the_interval_of_the_gap_covers_the_planted_one():
    rows, _ = judged({7: AHEAD, 56: BEHIND}, 1.0)
    assert -1.6 < rows[0]["gap_low"] < -1.1 < -0.9 < rows[0]["gap_high"] < -0.4  # two standard errors of a mean of 100: 0.4


def test_a_text_too_short_for_any_table_is_refused(text):
    with pytest.raises(ValueError, match=r"characters to learn from; characters=\(1000000,\) ask for more"):
        keyboard.readable(corpus.load(text), keyboard.Settings(characters=(1000000,)))
    with pytest.raises(ValueError, match="must rise, each a multiple of batch · context = 64"):
        keyboard.readable(corpus.load(text), keyboard.Settings(characters=(100,), batch=4, context=16))
    with pytest.raises(ValueError, match="must rise, each a multiple of batch · context = 64"):
        keyboard.readable(corpus.load(text), keyboard.Settings(characters=(128, 64), batch=4, context=16))


def test_settings_that_cannot_be_are_refused():
    for changed in ({"widths": ()}, {"orders": (0, 1)}, {"batch": 0}, {"piece": 0}, {"resamples": 0}, {"seeds": 0}):
        (name,) = changed
        with pytest.raises(ValueError, match=f"{name}=.* must be"):
            keyboard.Settings(**changed)
