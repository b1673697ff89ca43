"""How good a keyboard is, judged as keyboards are: on a text that somebody could have typed.

    keystroke savings = 1 − keys pressed / characters        top-k accuracy = words among the k suggested before a letter of them

A word costs a key for each letter until it is among the suggestions, and one more to take it with the space after it; a word
never suggested costs its letters and the space (Trnka & McCoy 2008, "Evaluating word prediction: framing keystroke savings").
"""

import math
from collections.abc import Iterable
from itertools import accumulate
from typing import NamedTuple

import numpy as np

from refllm.models.back_off import log10_distribution, log_probabilities
from refllm.models.keyboard import BOS, EOS, SPLITS, UNK, Keyboard


class Report(NamedTuple):
    """What a keyboard makes of a text. Words outside the vocabulary are words like others, which it never suggests."""

    lines: int
    words: int  # without the ends of lines
    characters: int  # of the words, and one after each
    unknown: int  # words outside the vocabulary
    surprise: float  # nats of all words, those unknown as <unk>, and of the ends of lines
    surprise_known: float  # nats without the unknown words
    typed: int  # words that were typed to count keys
    keys: int  # pressed for them
    keys_alone: int  # for them without suggestions
    first: int  # of them suggested in the first place before a letter was typed
    among: int  # of them suggested before a letter was typed

    @property
    def perplexity(self) -> float:
        """For each word and end of a line, with <unk> as a word."""
        return _exp(self.surprise, self.words + self.lines)

    @property
    def perplexity_known(self) -> float:
        """The same without the words outside the vocabulary."""
        return _exp(self.surprise_known, self.words + self.lines - self.unknown)

    @property
    def bits_per_character(self) -> float:
        """Which says little where many words are unknown: how they are spelled costs nothing."""
        return self.surprise / math.log(2) / self.characters

    @property
    def savings(self) -> float:
        """The share of keys that the suggestions save."""
        return 1 - self.keys / self.keys_alone if self.keys_alone else 0.0


def _exp(surprise: float, n: int) -> float:
    return float(np.exp(surprise / n)) if n else math.nan


def judge(keyboard: Keyboard, lines: Iterable[str], k: int, most: int) -> Report:
    """Type a text with a keyboard that shows k suggestions.

    lines: of the text; those without a word are left out    most: how many words are typed to count keys
    Raises ValueError where there is no word, and for k below 1.
    """
    if k < 1:
        raise ValueError(f"k={k}; a keyboard suggests at least one word.")
    sentences = [words for words in map(SPLITS[keyboard.split], lines) if words]
    if not sentences:
        raise ValueError("the text has no word; a keyboard is judged by words.")
    ids = [[keyboard.ids[BOS], *keyboard.encode(words), keyboard.ids[EOS]] for words in sentences]
    stream = np.concatenate([np.array(s) for s in ids])
    said = stream != keyboard.ids[BOS]
    unknown = stream == keyboard.ids[UNK]
    surprise = -log_probabilities(keyboard.table, stream)
    letters = sum(len(word) for words in sentences for word in words)
    n_words = sum(map(len, sentences))
    typed = keys = alone = first = among = 0
    for words, sentence in zip(sentences, ids, strict=True):
        for i, word in enumerate(words[: most - typed]):
            pressed, rank = _type(keyboard, sentence[: i + 1], word, k)
            keys, alone = keys + pressed, alone + len(word) + 1
            first, among, typed = first + (rank < 1), among + (rank < k), typed + 1
    return Report(
        len(sentences),
        n_words,
        letters + n_words,
        int(unknown.sum()),
        float(surprise[said].sum()),
        float(surprise[said & ~unknown].sum()),
        typed,
        keys,
        alone,
        first,
        among,
    )


def _type(keyboard: Keyboard, context: list[int], word: str, k: int) -> tuple[int, float]:
    """The keys that a word costs, and its place among all suggestions before its first letter."""
    id = keyboard.ids.get(word)
    alone = len(word) + 1
    if id is None or id in map(keyboard.ids.get, (UNK, BOS, EOS)):
        return alone, math.inf
    scores = log10_distribution(keyboard.table, context)
    if scores[id] == -np.inf:
        return alone, math.inf
    before = _rank(scores, keyboard.beginning_with(""), id)
    if before < k:
        return 1, before
    prefixes = list(accumulate(word))
    pressed = next((n for n, p in enumerate(prefixes, 1) if _rank(scores, keyboard.beginning_with(p), id) < k), len(word))
    return pressed + 1, before


def _rank(scores: np.ndarray, among: np.ndarray, id: int) -> int:
    """How many of these ids would be suggested before one of them."""
    others = scores[among]
    return int(np.sum(others > scores[id]) + np.sum((others == scores[id]) & (among < id)))
