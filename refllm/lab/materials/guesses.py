"""How well a model predicts each character of windows of text.

    keystroke savings = 1 − keys / characters

of words, each with the character that ends it. One suggestion is shown, the model's greedy completion up to the end of the word;
one key accepts it as soon as it is right, otherwise a key types a character. (`refllm.evaluation.keystrokes` is for models of
words.) As long as a completion is right, its characters are the model's predictions in the text itself, so nothing is generated.
"""

from typing import Any

import numpy as np


def judged(p: np.ndarray, windows: tuple[np.ndarray, np.ndarray], symbols: str) -> dict[str, Any]:
    """How well probabilities (B, T, V) predict the windows' targets (B, T): the mean loss and that of each window in nats per
    character, top-1 and top-3 accuracy, the lowest id first among equals, and keystroke savings. symbols: characters by id"""
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

    hits: (B, T) bool, whether a character is the model's first choice    before, inside: (B, T) bool, whether the character
    before it, and itself, belongs to a word
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
