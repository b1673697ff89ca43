"""What data that are read again are worth."""

import numpy as np
import pytest

from refllm.lab.materials import effective_data

E = (1, 2, 4, 8, 16, 32, 64)
EPOCHS = np.array(E, dtype=float)


def test_effective_data_are_read_off_a_known_curve_of_fresh_losses():
    D = np.geomspace(100, 10000, 9)
    fresh = 3 - 0.2 * np.log(D)
    wanted = np.array([100.0, 250.0, 9000.0])
    np.testing.assert_allclose(effective_data.equal_data(3 - 0.2 * np.log(wanted), D, fresh), wanted, rtol=1e-12)
    np.testing.assert_allclose(effective_data.equal_data(np.array([9.0, 0.0]), D, fresh), [100, 10000])  # none is made up beyond
    for bumped in range(1, 8):  # noise that raises one loss hides none before it
        bump = fresh + np.where(np.arange(9) == bumped, 0.9, 0.0)
        for i in set(range(9)) - {bumped, bumped - 1}:
            np.testing.assert_allclose(effective_data.equal_data(fresh[[i]], D, bump), D[[i]])


def test_the_published_law_has_the_published_values():
    wanted = [1, 1.968, 3.726, 6.624, 10.58, 15.17, 16.13]
    found = effective_data.predicted(np.array([1, 2, 4, 8, 16, 40, 64]), effective_data.PUBLISHED)
    np.testing.assert_allclose(found, wanted, rtol=5e-4)


@pytest.mark.parametrize("constant", [0.7, 15.39, 200.0])
def test_a_planted_constant_is_recovered(constant):
    assert effective_data.fit(EPOCHS, effective_data.predicted(EPOCHS, constant)) == pytest.approx(constant, rel=1e-4)


@pytest.mark.parametrize("seeds", [2, 4])
def test_95_percent_of_the_intervals_over_seeds_cover_a_planted_constant(seeds):
    noise, of_constant, of_values = np.random.default_rng(seeds), 0, 0
    for _ in range(100):
        effective = effective_data.predicted(EPOCHS, 10.0) * np.exp(0.1 * noise.standard_normal((seeds, 7)))
        rows, numbers = effective_data.summary(effective, E)
        of_constant += numbers["low"] <= 10 <= numbers["high"]
        of_values += sum(row["low"] <= effective_data.predicted(row["epochs"], 10.0) <= row["high"] for row in rows)
    assert 88 <= of_constant <= 100  # three standard errors from 95
    assert 647 <= of_values <= 683  # the same, of 700


def test_the_interval_is_students_of_logarithms():
    mean, low, high = effective_data.geometric_interval(np.exp([[1.0, 5.0], [2.0, 5.0], [4.5, 5.0]]))
    reach = 4.303 * np.std([1, 2, 4.5], ddof=1) / 3**0.5
    np.testing.assert_allclose(np.log(mean), [2.5, 5])
    np.testing.assert_allclose(np.log([low, high]), [[2.5 - reach, 5], [2.5 + reach, 5]], rtol=1e-3)


def test_a_law_that_rises_is_fitted_where_the_data_rise_and_tells_how_far_it_is_off():
    law = effective_data.predicted(EPOCHS, 10.0)
    fallen = np.stack([law, law]) * np.array([1, 1, 1, 1, 1, 1, 0.2])
    rows, numbers = effective_data.summary(fallen, E)
    assert numbers["R*"] == pytest.approx(10, rel=1e-4)
    assert (numbers["fitted_up_to_epoch"], numbers[effective_data.RMS]) == (32, pytest.approx(0, abs=1e-4))
    assert numbers["R*_of_all_epochs"] == pytest.approx(effective_data.fit(EPOCHS, fallen[0]))
    assert numbers["R*_of_all_epochs"] < 6
    assert rows[-1]["fitted"] == pytest.approx(law[-1], rel=1e-4)
    assert rows[-1]["published"] == pytest.approx(16.13, rel=5e-4)
    assert rows[-1]["share_of_fresh"] == pytest.approx(fallen[0, -1] / 64)

    rows, numbers = effective_data.summary(np.array([[1, 3.0, 2.0], [1, 3.0, 2.0]]), (1, 2, 4))
    assert numbers["fitted_up_to_epoch"] == 2
    _, numbers = effective_data.summary(np.array([[1, 0.8, 0.7], [1, 0.9, 0.6]]), (1, 2, 4))
    assert numbers["fitted_up_to_epoch"] == 2  # one number of epochs would fit any law

    off = law * np.exp([0, 0.3, -0.3, 0.3, -0.3, 0.3, 0.3])
    rows, numbers = effective_data.summary(np.stack([off, off]), E)
    misses = [np.log(row["effective_epochs"] / row["fitted"]) for row in rows]
    assert numbers[effective_data.RMS] == pytest.approx(np.sqrt(np.mean(np.square(misses))))
