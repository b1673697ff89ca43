"""Where two kinds of model are equally good."""

import numpy as np
import pytest

from refllm.lab.materials.crossing import Line, common, crossing, means, where, zero


def crossed(first, second, resamples=20, seed=0):
    """The crossing of lines whose sizes and losses (m, S, W) these are."""
    return crossing(*(means(Line(np.array(sizes), losses), resamples, seed) for sizes, losses in (first, second)))


def flat(losses, windows=8):
    """Losses (m,) that all windows of one model have."""
    return np.multiply.outer(np.array(losses), np.ones((1, windows)))


def test_lines_are_compared_only_where_both_are():
    np.testing.assert_allclose(common(np.array([0.0, 2.0, 5.0]), np.array([1.0, 3.0, 9.0])), [1, 2, 3, 5])
    assert len(common(np.array([0.0, 1.0]), np.array([2.0, 3.0]))) == 0


def test_the_first_change_of_sign_is_interpolated():
    assert zero(np.array([0.0, 1.0, 3.0, 4.0]), np.array([5.0, 1.0, -3.0, 1.0])) == pytest.approx(1.5)
    assert zero(np.array([0.0, 1.0]), np.array([1.0, 2.0])) is None
    assert zero(np.array([2.0]), np.array([0.0])) is None
    assert zero(np.array([1.0, 2.0]), np.array([0.0, 0.0])) == 1


def test_lines_without_a_size_in_common_cross_nowhere():
    assert crossed(([1.0, 2.0], flat([1, 1])), ([4.0, 8.0], flat([0, 0]))) == (None, None, None, None, None)


@pytest.mark.parametrize(
    ("losses", "reached", "size"),
    [((2.0, 1.5), 0, None), ((2.0, 0.5), 1, 9 ** (2 / 3)), ((0.5, 1.5), 1, 3), ((0.5, 0.6), 1, None), ((2.0, 1.0), 1, 9)],
)
def test_the_first_reaches_the_second_where_it_is_somewhere_as_good(losses, reached, size):
    found = crossed(([1.0, 9.0], flat(losses)), ([1.0, 9.0], flat([1, 1])))
    assert found.reached == reached
    assert found.range == pytest.approx((1, 9))
    assert found.size == (size and pytest.approx(size))


def test_the_interval_of_a_crossing_covers_the_true_one_about_as_often_as_it_says():
    draw, covered = np.random.default_rng(0), 0
    for trial in range(100):  # at size e^x the true losses are 2 − x and 1; every window adds noise of its own to each
        shared, x = draw.normal(size=60), np.array([0.0, 2.0])
        first = (2 - x)[:, None, None] + 0.5 * draw.normal(size=(1, 1, 60)) + shared
        found = crossed((np.exp(x), first), (np.exp(x), np.ones((2, 1, 60)) + shared), 100, trial)
        covered += found.low <= np.e <= found.high
    assert 86 <= covered <= 99  # 95 less three standard errors


def test_resamples_draw_the_same_windows_for_all_and_one_seed_for_each_size():
    windows = np.random.default_rng(0).normal(size=40)
    one, two = np.broadcast_to(windows, (3, 1, 40)), np.stack([windows, windows + 7])[None].repeat(3, axis=0)
    first, second = (means(Line(np.arange(3.0), losses), 200, 5) for losses in (one, two))
    np.testing.assert_allclose(second.found, windows.mean() + 3.5)
    added = second.drawn - first.drawn
    np.testing.assert_allclose(added, 7 * np.round(added / 7), atol=1e-12)
    assert 0.35 < (added > 1).mean() < 0.65
    assert len({tuple(row) for row in np.round(added / 7)}) == 8  # drawn for every size by itself
    assert first.drawn.std() == pytest.approx(windows.std() / 40**0.5, rel=0.2)


def test_an_end_beyond_the_sizes_is_left_open():
    x = np.array([0.0, 1.0])
    falls, above, below = ([1.0, -1.0], [2.0, 1.0], [-1.0, -2.0])
    for others, low, high in (([], 0.5, 0.5), ([above], 0.5, None), ([below], None, 0.5), ([above, below], None, None)):
        drawn = np.array([falls] * 9 + others)
        wanted = (0.5, low, high)
        for sign in (1, -1):  # also where the other kind leads first
            found = where(x, sign * np.array(falls), sign * drawn)
            assert [end and np.log(end) for end in found] == [end and pytest.approx(end) for end in wanted]
    assert where(x, np.array(above), np.array([falls])) == (None, None, None)


def test_an_interval_holds_what_it_is_of():
    x = np.array([0.0, 1.0])
    at, low, high = np.log(where(x, np.array([1.0, -1.0]), np.array([[1.0, -3.0]] * 5)))
    assert (at, low, high) == pytest.approx((0.5, 0.25, 0.5))
