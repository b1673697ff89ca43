"""How well characters are guessed."""

import numpy as np
import pytest

from refllm.lab.materials import guesses


def test_ranks_count_what_is_likelier_and_equals_with_lower_ids():
    p = np.array([[[0.4, 0.3, 0.2, 0.1], [0.25, 0.25, 0.25, 0.25], [0.1, 0.2, 0.3, 0.4]]])
    tokens, targets = np.array([[0, 0, 0]]), np.array([[2, 3, 3]])
    found = guesses.judged(p, (tokens, targets), "ab  ")
    assert found["first"] == pytest.approx(1 / 3)
    assert found["among_three"] == pytest.approx(2 / 3)
    assert found["loss"] == pytest.approx(-np.log([0.2, 0.25, 0.4]).mean())
    assert found["window_losses"] == pytest.approx([found["loss"]], abs=1e-6)


@pytest.mark.parametrize(
    ("text", "hits", "keys", "characters"),
    [
        (" word ", "11111", 1, 5),  # taken before a letter
        (" word ", "10111", 3, 5),  # two letters, then the suggestion
        (" word ", "00001", 5, 5),  # its end alone: nothing to save
        (" word ", "11110", 5, 5),  # never right up to its end
        (" word", "1111", 0, 0),  # does not end here
        ("word ", "1111", 0, 0),  # did not begin here
        (" ab, cd ", "0111111", 2 + 1, 6),  # what stands between words is not theirs
    ],
)
def test_a_suggestion_saves_the_keys_after_the_last_wrong_guess(text, hits, keys, characters):
    hit = np.array([[h == "1" for h in hits]])
    inside = np.array([[c.isalnum() for c in text]])
    wanted = 1 - keys / characters if characters else 0
    assert guesses.savings(hit, inside[:, :-1], inside[:, 1:]) == pytest.approx(wanted)


def test_letters_digits_and_underscores_are_words_characters():
    windows = np.array([[2, 0, 1]]), np.array([[0, 1, 2]])  # "_a" between characters that end it, all of it guessed
    p = np.eye(3)[windows[1]]
    assert guesses.judged(p, windows, "_a ")["savings"] == pytest.approx(1 - 1 / 3)
    assert guesses.judged(p, windows, "_+ ")["savings"] == pytest.approx(1 - 1 / 2)
