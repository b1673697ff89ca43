"""How well a model guesses each character of windows of text.

    keystroke savings = 1 − keys / characters

of words with the character that ends each: one suggestion is shown, the model's likeliest characters up to the word's end, and
a key takes it as soon as it is right; else a key types a character. (`refllm.evaluation.keystrokes` judges models of words.)
What a model writes after a right beginning is what it guesses in the text itself, so that nothing needs to be written.
"""

from typing import Any

import numpy as np


def judged(p: np.ndarray, windows: tuple[np.ndarray, np.ndarray], symbols: str) -> dict[str, Any]:
    """How well probabilities (B, T, V) guess the windows' targets: the mean surprise, the share that is guessed first and among
    three, of equals the lowest id first, and keystroke savings."""
    tokens, targets = windows
    right = np.take_along_axis(p, targets[..., None], axis=2)
    ties = (p == right) & (np.arange(p.shape[2]) < targets[..., None])
    rank = np.sum((p > right) | ties, axis=2)
    nats = -np.log(right[..., 0])
    inside = np.array([c.isalnum() or c == "_" for c in symbols])
    return {
        "loss": float(nats.mean()),
        "first": float(np.mean(rank < 1)),
        "among_three": float(np.mean(rank < 3)),
        "savings": savings(rank < 1, inside[tokens], inside[targets]),
        "window_losses": nats.mean(axis=1).round(6).tolist(),
    }


def savings(hits: np.ndarray, before: np.ndarray, inside: np.ndarray) -> float:
    """The share of keys that one suggestion saves, of the words that lie whole in a window.

    hits: (B, T) whether a character is the model's first guess    before, inside: whether the one before it, and itself, is a
    word's
    """
    keys = characters = 0
    for hit, first, word in zip(hits, inside & ~before, inside, strict=True):
        ends = np.flatnonzero(~word)
        for begin in np.flatnonzero(first):
            if (place := np.searchsorted(ends, begin)) < len(ends):
                guessed = hit[begin : ends[place] + 1]
                missed = np.flatnonzero(~guessed)
                typed = missed[-1] + 1 if len(missed) else 0  # what is left after these is guessed right
                keys, characters = keys + min(typed + 1, len(guessed)), characters + len(guessed)
    return 1 - keys / characters if characters else 0.0
