"""The ids of words, remembered: text is made of few different words, so most are merged once."""

from collections.abc import Callable, Iterable

MOST_WORDS = 1 << 18
LONGEST_WORD = 64  # characters; longer words seldom come again


class RememberedWords(dict[str, tuple[int, ...]]):
    """word -> ids, worked out when it is first asked for; emptied when it has grown too large."""

    def __init__(self, encode: Callable[[str], Iterable[int]]):
        super().__init__()
        self._encode = encode

    def __missing__(self, word: str) -> tuple[int, ...]:
        ids = tuple(self._encode(word))
        if len(word) <= LONGEST_WORD:
            if len(self) >= MOST_WORDS:
                self.clear()
            self[word] = ids
        return ids
