"""Why a model errs, on outcomes whose cause was planted."""

import numpy as np
import pytest

from refllm.lab.reliability.battery import battery, concentration, explained, hardness, persistent_share_exact, shares

ITEMS, STEPS, ATTEMPTS = 600, 50, 16


def truth(name, seed=0):
    """Each cell's probability to be right (items, steps), and what each step asks for."""
    rng = np.random.default_rng(seed)
    features = rng.integers(0, 200, (ITEMS, STEPS))
    hard = rng.random((ITEMS, STEPS)) < 0.01
    if name == "noise":
        return np.full((ITEMS, STEPS), 0.99), features
    if name == "hard steps":
        return np.where(hard, 0.0, 1.0), features
    if name == "hard steps, now and then solved":
        return np.where(hard, 0.2, 0.998), features
    if name == "a missing skill":
        return np.where(np.isin(features, [3, 77]), 0.0, 1.0), features
    if name == "a missing skill that few items need":
        needs = (rng.random(ITEMS) < 0.2)[:, None] & (rng.random((ITEMS, STEPS)) < 0.05)
        features = np.where(needs, 3, np.where(features == 3, 4, features))
        return np.where(needs, 0.0, 1.0), features
    return np.where(hard, 0.3, 0.995), features  # noise and hard steps


def judged(name, seed=0, **options):
    p, features = truth(name, seed)
    attempts = np.random.default_rng(seed + 100).random((ATTEMPTS, ITEMS, STEPS)) < p
    return battery(attempts, features, **options), p


@pytest.mark.parametrize(
    ("name", "causes"),
    [
        ("noise", "A"),
        ("hard steps", "B"),
        ("hard steps, now and then solved", "B"),
        ("a missing skill", "C"),
        ("a missing skill that few items need", "C"),
        ("noise and hard steps", "A+B"),
    ],
)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_cause_that_was_planted_is_named(name, causes, seed):
    found, p = judged(name, seed, permutations=20)
    assert found.causes == causes
    assert found.noise + found.hard + found.missing == pytest.approx(1)
    assert found.persistent_share == pytest.approx(persistent_share_exact(p), abs=0.05)


def test_shares_are_those_that_were_planted():
    """Of 1 % hard cells failing 7 times in 10, and 99 % easy ones failing 5 times in 1,000."""
    found, _ = judged("noise and hard steps", permutations=5)
    assert found.noise == pytest.approx(0.99 * 0.005 / (0.99 * 0.005 + 0.01 * 0.7), abs=0.03)


def test_the_skill_that_is_missing_is_named():
    assert judged("a missing skill", permutations=5)[0].features == (3, 77)
    assert judged("a missing skill that few items need", permutations=5)[0].features == (3,)
    assert judged("hard steps", permutations=5)[0].features == ()


def test_only_errors_that_crowd_in_items_break_the_product_law():
    crowded, _ = judged("a missing skill that few items need")
    assert crowded.exact_match > crowded.product + 0.1
    assert crowded.product_p < 0.01
    assert crowded.dispersion > 2
    assert crowded.dispersion_p < 0.01
    for name in ("noise", "hard steps"):
        scattered, _ = judged(name)
        assert scattered.exact_match == pytest.approx(scattered.product, abs=0.03)
        assert scattered.product_p > 0.01
        assert scattered.dispersion == pytest.approx(1, abs=0.15)


def planted_errors(features, hard, seed=0):
    """Errors of 16 attempts: in hard cells all of them, in others 1 % (items, steps)."""
    return np.random.default_rng(seed).binomial(16, np.where(hard, 1.0, 0.01))


def test_a_feature_of_one_cell_is_no_skill():
    features, hard = np.arange(3000).reshape(300, 10), np.random.default_rng(0).random((300, 10)) < 0.05
    _, persistent, missing, lacking = shares(planted_errors(features, hard), 16, features)
    assert missing == 0
    assert lacking == ()
    assert persistent > 0.7


def test_a_feature_that_is_hard_more_often_but_mostly_easy_is_no_missing_skill():
    features = np.random.default_rng(1).integers(0, 20, (600, 20))
    hard = np.random.default_rng(2).random((600, 20)) < np.where(features == 4, 0.3, 0.005)
    _, persistent, missing, lacking = shares(planted_errors(features, hard), 16, features)
    assert lacking == ()
    assert missing < 0.4 * persistent


def test_facts_that_were_never_learned_are_missing_however_few_times_each_is_asked():
    rng = np.random.default_rng(3)
    features = rng.integers(0, 2000, (1000, 8))
    hard = (rng.random(2000) < 0.5)[features]
    noise, persistent, missing, lacking = shares(planted_errors(features, hard), 16, features)
    assert missing > 0.9
    assert noise + persistent < 0.1
    assert len(lacking) > 800


@pytest.mark.parametrize("share", [0.0, 0.3, 0.8])
def test_the_explained_share_is_that_of_the_variance_that_was_planted(share):
    """Five standard errors, of groups that have two members or eight."""
    rng = np.random.default_rng(4)
    which = np.concatenate([np.arange(5000), np.arange(5000), np.repeat(np.arange(2500), 6)])
    x = np.sqrt(share) * rng.standard_normal(5000)[which] + np.sqrt(1 - share) * rng.standard_normal(25_000)
    assert explained(x, which) == pytest.approx(share, abs=0.06)


def test_the_explained_share_by_hand():
    """Two groups of two: means 1 and 4, mean squares 9 between and 2 within, so (9 − 2) / (9 + 2)."""
    assert explained(np.array([0.0, 2.0, 3.0, 5.0]), np.array([0, 0, 1, 1])) == pytest.approx((9 - 2) / (9 + 2))


def test_without_features_a_missing_skill_looks_like_hard_steps():
    p, _ = truth("a missing skill")
    found = battery(np.random.default_rng(0).random((ATTEMPTS, ITEMS, STEPS)) < p, permutations=5)
    assert found.causes == "B"


def test_no_errors_have_no_cause():
    found = battery(np.ones((4, 10, 5), dtype=bool), permutations=5)
    assert found.causes == ""
    assert (found.noise, found.hard, found.missing) == (0, 0, 0)


def test_everything_wrong_is_no_noise():
    noise, hard, missing, _ = shares(np.full((20, 5), 8), 8)
    assert (noise, missing) == (0, 0)
    assert hard == 1


def test_one_kind_of_cells_is_not_taken_for_two():
    errors = np.random.default_rng(0).binomial(16, 0.05, (300, 20))
    assert np.all(hardness(errors, 16) == 0)


@pytest.mark.parametrize("shape", [(1, 10, 5), (10, 5), (4, 1, 5)])
def test_too_few_attempts_or_items_are_refused(shape):
    with pytest.raises(ValueError, match="have shape"):
        battery(np.ones(shape, dtype=bool))


def test_features_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"features have shape \(3,\); they need that of items and steps, \(10, 5\)"):
        battery(np.zeros((4, 10, 5), dtype=bool), np.zeros(3), permutations=2)


def test_errors_of_one_feature_in_a_hundred_all_lie_in_the_worst_hundredth():
    features = np.random.default_rng(5).integers(0, 200, (400, 30))
    found = concentration(np.where(np.isin(features, [3, 77]), 16, 0), features)
    assert found.top == 1
    assert found.p_value == pytest.approx(1 / 101)
    assert found.steps[1] == pytest.approx(np.isin(features, [3, 77]).mean())
    assert found.by_chance[1] < 0.1
    assert found.steps[-1] == found.errors[-1] == found.by_chance[-1] == pytest.approx(1)


def test_errors_that_fall_anywhere_crowd_as_chance_has_it():
    rng = np.random.default_rng(6)
    features, errors = rng.integers(0, 200, (400, 30)), rng.binomial(16, 0.01, (400, 30))
    found = concentration(errors, features)
    assert found.p_value > 0.05
    np.testing.assert_allclose(found.errors, found.by_chance, atol=0.05)
    assert np.all(np.diff(found.errors / found.steps) < 1e-12)  # the worst come first


def test_a_rare_feature_that_always_fails_is_worse_than_a_common_one_that_often_does():
    """Of 10 steps feature 7 has one, always wrong; feature 2 has nine, five of them wrong."""
    features, errors = np.array([[7, 2, 2, 2, 2, 2, 2, 2, 2, 2]]), np.array([[1, 1, 1, 1, 1, 1, 0, 0, 0, 0]])
    found = concentration(errors, features)
    assert found.steps == pytest.approx([0.1, 1])
    assert found.errors == pytest.approx([1 / 6, 1])
    assert found.top == pytest.approx(1 / 6)


def test_no_errors_crowd_nowhere():
    found = concentration(np.zeros((4, 5), int), np.zeros((4, 5), int))
    assert (found.top, found.p_value) == (0, 1)
