"""The phone keyboard: words, an n-gram model of them, and what it suggests while a text is typed.

A line is a sentence: `<s>`, its words, `</s>`. A word outside the vocabulary is `<unk>`. What is typed after the last space
is the beginning of a word, and only words that begin with it are suggested, whatever the case of their letters.
"""

import re
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property

import numpy as np

from refllm.models.back_off import Table, best, from_kneser_ney, log10_distribution, log_probabilities
from refllm.models.ngram import Counts, count, smooth

UNK, BOS, EOS = "<unk>", "<s>", "</s>"
SPECIAL = (UNK, BOS, EOS)  # in the order of KenLM's ids

_WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")
_OPEN = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*['’-]?\Z")  # the word that a text ends in

SPLITS: Mapping[str, Callable[[str], list[str]]] = {
    "words": _WORD.findall,  # letters and digits, with ' and - inside; no punctuation
    "spaces": str.split,  # as SRILM and KenLM cut a line
}


class Keyboard:
    """Words, their model, and what is made of both once."""

    def __init__(self, words: Sequence[str], table: Table, split: str = "words") -> None:
        """words: of each id, with `<unk>`, `<s>` and `</s>`    split: a name in SPLITS

        Raises ValueError where one of the three is missing, a word stands twice, or the number of words is not the table's.
        """
        if split not in SPLITS:
            raise ValueError(f"split={split!r} is not known; choose one of {', '.join(SPLITS)}.")
        self.words, self.table, self.split = tuple(words), table, split
        self.ids = {word: id for id, word in enumerate(self.words)}
        missing = [word for word in SPECIAL if word not in self.ids]
        if missing or len(self.ids) != len(self.words) or len(self.words) != table.vocab_size:
            what = f"lacks {missing[0]}" if missing else f"has {len(self.ids)} different words for {table.vocab_size} ids"
            raise ValueError(f"the vocabulary {what}; a keyboard needs <unk>, <s>, </s> and a word for each id.")
        if table.begin != self.ids[BOS]:
            raise ValueError(f"sentences of the model begin with id {table.begin}; a keyboard needs <s>, {self.ids[BOS]}.")

    @cached_property
    def _folded(self) -> tuple[list[str], np.ndarray]:
        """The words that may be suggested in lower case, ascending, and their ids."""
        plain = [(word.casefold(), id) for id, word in enumerate(self.words) if word not in SPECIAL]
        plain.sort()
        return [word for word, _ in plain], np.array([id for _, id in plain], np.int64)

    def encode(self, words: Iterable[str]) -> list[int]:
        """The ids of words, that of `<unk>` for those outside the vocabulary and for the names of special ones."""
        unk = self.ids[UNK]
        return [unk if word in SPECIAL else self.ids.get(word, unk) for word in words]

    def sentence(self, line: str) -> list[int]:
        """The ids of a line, with those that begin and end it."""
        return [self.ids[BOS], *self.encode(SPLITS[self.split](line)), self.ids[EOS]]

    def log_probability(self, line: str) -> float:
        """That of a line with its end, in nats."""
        ids = self.sentence(line)
        return float(np.sum(log_probabilities(self.table, ids[1:], ids[:1])))

    def beginning_with(self, prefix: str) -> np.ndarray:
        """The ids of the words that begin with what is typed: (n,)."""
        folded, ids = self._folded
        start = prefix.casefold()

        def head(word: str) -> str:
            return word[: len(start)]

        return ids[bisect_left(folded, start, key=head) : bisect_right(folded, start, key=head)]

    def typed(self, text: str) -> tuple[list[int], str]:
        """What the last line of a text means to a keyboard: the ids before the word being typed, and what it has of it."""
        line = text.rpartition("\n")[2]
        if self.split == "words":
            opened = _OPEN.search(line)
            prefix = opened[0] if opened else ""
        else:
            prefix = "" if line[-1:].isspace() or not line else line.split()[-1]
        return [self.ids[BOS], *self.encode(SPLITS[self.split](line[: len(line) - len(prefix)]))], prefix

    def suggest(self, text: str, k: int = 3) -> list[str]:
        """The k words most probable after a text, or to end the word that it ends in; the best first, of equals the lowest id.

        Raises ValueError for k below 1.
        """
        if k < 1:
            raise ValueError(f"k={k}; a keyboard suggests at least one word.")
        context, prefix = self.typed(text)
        return [self.words[id] for id in best(log10_distribution(self.table, context), k, self.beginning_with(prefix))]


def vocabulary(sentences: Iterable[Sequence[str]], least: int = 1, most: int | None = None) -> list[str]:
    """The special words and those that occur often enough, the most frequent first, equals by code points.

    least: occurrences    most: words in all, with the special ones
    """
    counted: Counter[str] = Counter()
    for words in sentences:
        counted.update(words)
    for word in SPECIAL:
        del counted[word]
    kept = sorted((word for word, n in counted.items() if n >= least), key=lambda word: (-counted[word], word))
    return [*SPECIAL, *kept][:most]


def stream(sentences: Iterable[Sequence[str]], words: Sequence[str]) -> np.ndarray:
    """All sentences as ids, one behind another, each between `<s>` and `</s>`: (T,) int64."""
    ids = {word: id for id, word in enumerate(words)}
    unk, bos, eos = (ids.pop(word) for word in SPECIAL)

    def all_ids() -> Iterable[int]:
        for sentence in sentences:
            yield bos
            for word in sentence:
                yield ids.get(word, unk)
            yield eos

    return np.fromiter(all_ids(), np.int64)


def counted(sentences: Iterable[Sequence[str]], words: Sequence[str], order: int) -> Counts:
    """The n-grams of sentences. Raises ValueError for an order below 1, and where there is no sentence."""
    return count(stream(sentences, words), order, len(words), words.index(BOS))


def kneser_ney(counts: Counts) -> Table:
    """The interpolated model of counted n-grams in back-off form."""
    return from_kneser_ney(smooth(counts))
