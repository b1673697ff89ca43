"""The value of repeated data."""

import numpy as np
import pytest

from refllm.lab import corpus, epochs
from refllm.lab.experiment import conduct
from refllm.lab.verdict import FAILS, HOLDS, UNDECIDABLE

TINY = epochs.Settings(width=8, unique=512, epochs=(1, 2, 4, 16), seeds=2, batch=4, context=16, windows=12)
E = np.array([1.0, 2, 4, 8, 16, 32, 64])


@pytest.fixture(scope="module")
def conducted(tmp_path_factory, text):
    folder = tmp_path_factory.mktemp("lab")
    settings = epochs.Settings(**{**vars(TINY), "text": text})
    return conduct(epochs, settings, folder, report=lambda line: None), folder / "epochs"


def test_one_epoch_is_worth_one_and_losses_stand_beside_each_other(conducted):
    result, place = conducted
    first, *_, last = result["tables"]["value"]
    assert first["effective_epochs"] == pytest.approx(1, rel=1e-9)
    assert first["fresh_loss"] == first["repeated_loss"]  # the first epoch is the same to the bit
    assert [row["epochs"] for row in result["tables"]["value"]] == [1, 2, 4, 16]
    repeated = [r["loss"] for r in result["tables"]["models"] if r["kind"] == "repeated" and r["characters"] == 16 * 512]
    assert last["repeated_loss"] == pytest.approx(np.mean(repeated))
    assert len(repeated) == 2
    assert (place / "value_of_epochs.png").is_file()
    assert epochs.judge({"epochs": result}).value == result["numbers"]["R*"]


def test_repeated_data_are_the_first_of_the_fresh_in_an_order_of_each_epochs_own():
    order = np.random.default_rng(0).permutation(1000)
    jobs = {kind: epochs.Job(kind, 5, TINY) for kind in ("fresh", "repeated")}
    read = {kind: [epochs.window_numbers(job, order, step, 8) for step in range(32)] for kind, job in jobs.items()}
    np.testing.assert_array_equal(np.concatenate(read["fresh"]), order[:128])
    np.testing.assert_array_equal(read["repeated"][:8], read["fresh"][:8])
    by_epoch = np.array(read["repeated"]).reshape(4, 32)
    for one in by_epoch:
        assert sorted(one) == sorted(order[:32])
    assert len({tuple(one) for one in by_epoch}) == 4


def test_effective_data_are_read_off_a_known_curve_of_fresh_losses():
    D = np.geomspace(100, 10000, 9)
    fresh = 3 - 0.2 * np.log(D)
    wanted = np.array([100.0, 250.0, 9000.0])
    np.testing.assert_allclose(epochs.equal_data(3 - 0.2 * np.log(wanted), D, fresh), wanted, rtol=1e-12)
    np.testing.assert_allclose(epochs.equal_data(np.array([9.0, 0.0]), D, fresh), [100, 10000])  # none is made up beyond
    for bumped in range(1, 8):  # noise that raises one loss hides none before it
        bump = fresh + np.where(np.arange(9) == bumped, 0.9, 0.0)
        for i in set(range(9)) - {bumped, bumped - 1}:
            np.testing.assert_allclose(epochs.equal_data(fresh[[i]], D, bump), D[[i]])


def test_the_published_law_has_the_published_values():
    wanted = [1, 1.968, 3.726, 6.624, 10.58, 15.17, 16.13]
    np.testing.assert_allclose(epochs.predicted(np.array([1, 2, 4, 8, 16, 40, 64]), 15.39), wanted, rtol=5e-4)


@pytest.mark.parametrize("constant", [0.7, 15.39, 200.0])
def test_a_planted_constant_is_recovered(constant):
    assert epochs.fit(E, epochs.predicted(E, constant)) == pytest.approx(constant, rel=1e-4)


def test_the_interval_over_seeds_covers_a_planted_constant():
    noise, settings = np.random.default_rng(1), epochs.Settings(seeds=6)
    covered, of_values = 0, 0
    for _ in range(20):
        effective = epochs.predicted(E, 10.0) * np.exp(0.1 * noise.standard_normal((6, 7)))
        rows, numbers = epochs.summary(effective, settings)
        covered += numbers["low"] <= 10 <= numbers["high"]
        of_values += sum(row["low"] <= epochs.predicted(row["epochs"], 10.0) <= row["high"] for row in rows)
        assert all(row["low"] <= row["effective_epochs"] <= row["high"] for row in rows)
    assert of_values >= 0.8 * 20 * 7
    assert covered >= 14  # six seeds give somewhat narrow bootstraps; luck alone would give fewer


def test_the_claim_is_judged_by_the_worth_of_the_most_epochs():
    def verdict(worth, low, high):
        row = {"epochs": 64, "effective_epochs": worth, "low": low, "high": high, "published": 16.1}
        return epochs.judge({"epochs": {"numbers": {"R*": 9, "low": 8, "high": 10}, "tables": {"value": [row]}}}).verdict

    assert verdict(16, 12, 20) == HOLDS
    assert verdict(30, 20, 40) == UNDECIDABLE
    assert verdict(50, 40, 60) == FAILS


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"epochs": (2, 4)}, r"epochs=\(2, 4\) must rise from 1"),
        ({"unique": 500}, r"unique=500 must be a multiple of batch · context = 64"),
        ({"unique": 6400}, r"16 epochs of 6,400 are compared with 102,400 fresh ones"),
    ],
)
def test_settings_that_cannot_be_are_refused(text, changed, message):
    with pytest.raises(ValueError, match=message):
        epochs.check(epochs.Settings(**{**vars(TINY), **changed}), corpus.load(text))
