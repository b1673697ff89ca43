"""Models trained on what models wrote."""

import numpy as np
import pytest

from refllm.lab.experiment import conduct
from refllm.lab.experiments import collapse
from refllm.lab.materials import corpus, text_models
from refllm.lab.verdict import FAILS, HOLDS, UNDECIDABLE

TINY = collapse.Settings(
    characters=2048,
    order=3,
    piece=64,
    table_generations=4,
    table_seeds=2,
    width=8,
    generations=2,
    seeds=1,
    steps=40,
    batch=4,
    context=16,
    windows=40,
)


@pytest.fixture(scope="module")
def conducted(tmp_path_factory, text):
    folder = tmp_path_factory.mktemp("lab")
    settings = collapse.Settings(**{**vars(TINY), "text": text})
    return conduct(collapse, settings, folder, report=lambda line: None), folder / "collapse"


def of(result, kind, data, seed=0):
    return [r for r in result["tables"]["generations"] if (r["kind"], r["data"], r["seed"]) == (kind, data, seed)]


def test_every_generation_of_every_kind_is_there(conducted):
    result, place = conducted
    for data in collapse.REGIMES:
        for seed in (0, 1):
            assert [row["generation"] for row in of(result, "n-gram", data, seed)] == [0, 1, 2, 3]
        assert [row["generation"] for row in of(result, "transformer", data)] == [0, 1]
    assert {p.name for p in place.glob("*.png")} == {"collapse.png", "what_they_write.png"}
    first = {of(result, "transformer", data)[0]["loss"] for data in collapse.REGIMES}
    assert len(first) == 1  # the first generation is the same


def test_tables_lose_with_every_generation_that_replaces_the_text_and_less_where_texts_accumulate(conducted):
    result, _ = conducted
    for seed in (0, 1):
        replaced, accumulated, fresh = ([r["loss"] for r in of(result, "n-gram", data, seed)] for data in collapse.REGIMES)
        assert (np.diff(replaced) > 0).all()
        assert replaced[-1] > accumulated[-1] > fresh[-1]
        assert fresh[-1] < fresh[0]


def test_each_regime_passes_on_its_own_text():
    data, written, fresh = (np.full((2, 3), i) for i in range(3))
    assert collapse.following("replace", data, written, fresh).tolist() == [[1, 1, 1]] * 2
    assert collapse.following("accumulate", data, written, fresh)[:, 0].tolist() == [0, 0, 1, 1]
    assert collapse.following("fresh", data, written, fresh)[:, 0].tolist() == [0, 0, 2, 2]


def test_fresh_text_is_real_and_none_of_it_comes_twice(monkeypatch, text):
    settings = collapse.Settings(**{**vars(TINY), "text": text})
    seen = []

    def spy(job, data, *rest):
        seen.append(data)
        return collapse.writers.Generation(0.0, np.zeros((2, job.length), dtype=np.uint8), 0.0)

    monkeypatch.setattr(collapse, "learned", spy)
    collapse.train_generations(collapse.Job("transformer", "fresh", 3, settings))
    pieces = text_models.pieces(corpus.load(text).train, 17, 3)
    assert [len(data) for data in seen] == [120, 240]
    np.testing.assert_array_equal(seen[1], pieces[:240])


def test_every_generation_draws_its_own_random_numbers(monkeypatch):
    addresses = []
    monkeypatch.setattr(collapse.writers, "table", lambda *arguments: addresses.append(arguments[-2:]))
    monkeypatch.setattr(collapse.writers, "transformer", lambda *arguments: addresses.append(arguments[-1]))
    for kind in ("n-gram", "transformer"):
        for seed in (0, 1):
            for g in (0, 1):
                collapse.learned(collapse.Job(kind, "replace", seed, TINY), None, g, None, 9)
    assert addresses == [(0, 0), (0, 1), (1, 0), (1, 1), 0, 1, 1000, 1001]


def test_measures_count_different_ngrams_and_rare_characters():
    written = np.array([[1, 2, 1, 2, 1, 2], [3, 1, 2, 1, 2, 9]], dtype=np.uint8)
    found = collapse.measures(written, np.array([3, 9]))
    assert found["distinct"] == pytest.approx(4 / 6)  # 1212, 2121 twice each; 3121, 2129
    assert found["rare"] == pytest.approx(2 / 12)
    assert collapse.measures(np.array([[2, 0, 0, 0], [0, 1, 0, 0]], dtype=np.uint8), np.array([9]))["distinct"] == 1


def test_rare_characters_are_the_rarest_up_to_their_share():
    ids = np.repeat(np.arange(5), [500, 3, 489, 4, 4])
    assert sorted(collapse.rare_characters(ids, 6)) == [1, 3, 5]  # 7 of 1,000, and one that never comes


@pytest.mark.parametrize(
    ("replaced", "accumulated", "verdict"),
    [
        ((1.0, 0.5), (0.2, 0.1), HOLDS),
        ((-1.0, 0.0), (-2.0, 0.0), FAILS),
        ((1.0, -0.1), (0.2, -0.2), UNDECIDABLE),
        ((1.0, 0.5), (1.2, 0.1), UNDECIDABLE),
    ],
)
def test_the_claim_is_judged_by_both_kinds(replaced, accumulated, verdict):
    rows = [
        {"kind": kind, "data": data, "seed": seed, "generation": g, "loss": 2 + rise * g / 2}
        for data, both in (("replace", replaced), ("accumulate", accumulated))
        for kind, rise in zip(("n-gram", "transformer"), both, strict=True)
        for seed in (0, 1, 2)
        for g in (0, 1, 2)
    ]
    finding = collapse.judge({"collapse": {"tables": {"generations": rows}}})
    assert finding.verdict == verdict
    assert finding.value == pytest.approx(replaced[0] / 2)
    assert finding.low <= finding.value <= finding.high


def planted(rises, accumulated=-0.1):
    """Rows of as many seeds of both kinds as there are rises in a generation."""
    return [
        {"kind": kind, "data": data, "seed": seed, "generation": g, "loss": 2 + g * rise}
        for kind in ("n-gram", "transformer")
        for seed, one in enumerate(rises)
        for data, rise in (("replace", one), ("accumulate", accumulated))
        for g in range(2 if kind == "n-gram" else 4)
    ]


def test_few_seeds_decide_nothing():
    for rise in (1.0, -1.0):
        finding = collapse.judge({"collapse": {"tables": {"generations": planted([rise, rise])}}})
        assert finding.verdict == UNDECIDABLE  # four of four agree by chance once in sixteen


def test_the_interval_is_students_over_the_seeds_of_tables():
    finding = collapse.judge({"collapse": {"tables": {"generations": planted([1.0, 2.0, 4.5])}}})
    reach = 4.303 * np.std([1, 2, 4.5], ddof=1) / 3**0.5
    assert finding[:3] == pytest.approx((2.5, 2.5 - reach, 2.5 + reach), rel=1e-3)
    assert "samples bring 6 of 6 below the loss of the first real text alone" in finding.why


def test_a_text_too_short_for_fresh_ones_is_refused():
    settings = collapse.Settings(**{**vars(TINY), "characters": 140})  # two pieces of 64 for tables, eight of 17 for transformers
    ids = np.zeros(4 * 2 * 64, dtype=np.uint8)
    collapse.check(settings, corpus.Text(ids, ids, "a", "a text"))
    with pytest.raises(ValueError, match="a text has 511 .*; 4 generations of 128 need more. Set characters lower"):
        collapse.check(settings, corpus.Text(ids[1:], ids, "a", "a text"))


@pytest.mark.parametrize(
    "changed", [{"table_generations": 1}, {"generations": 1}, {"table_seeds": 1}, {"piece": 3}, {"context": 2}, {"order": 0}]
)
def test_settings_that_cannot_be_are_refused(changed):
    (name,) = changed
    with pytest.raises(ValueError, match=f"{name}={changed[name]} must be at least {changed[name] + 1}"):
        collapse.Settings(**changed)


def test_means_are_over_seeds_beside_the_least_and_the_greatest_loss():
    rows = [
        {
            "kind": "n-gram",
            "data": data,
            "generation": g,
            "seed": seed,
            "loss": loss,
            "distinct": loss / 8,
            "rare": 0,
            "entropy": 2,
        }
        for data, g, losses in (("replace", 0, (2, 1, 6)), ("replace", 1, (4, 4, 4)), ("fresh", 0, (1, 3, 5)))
        for seed, loss in enumerate(losses)
    ]
    found = collapse.means(rows)
    assert [(row["data"], row["generation"]) for row in found] == [("replace", 0), ("replace", 1), ("fresh", 0)]
    assert [(row["loss"], row["low"], row["high"]) for row in found] == [(3, 1, 6), (4, 4, 4), (3, 1, 5)]
    assert [row["distinct"] for row in found] == [3 / 8, 1 / 2, 3 / 8]
