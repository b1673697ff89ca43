"""The ids of words, remembered: text is made of few different words, so most are merged once."""

from collections.abc import Callable, Iterable, Mapping

MOST_WORDS = 1 << 18
LONGEST_WORD = 64  # characters; longer words seldom come again


class RememberedWords(dict[str, tuple[int, ...]]):
    """word -> ids, worked out when it is first asked for; when it has grown too large, all but the known ones are forgotten.

    known: the words whose ids are known from the beginning
    """

    def __init__(self, encode: Callable[[str], Iterable[int]], known: Mapping[str, tuple[int, ...]] | None = None):
        super().__init__(known or {})
        self._encode = encode
        self._known = dict(known or {})

    def __missing__(self, word: str) -> tuple[int, ...]:
        ids = tuple(self._encode(word))
        if len(word) <= LONGEST_WORD:
            if len(self) - len(self._known) >= MOST_WORDS:
                self.clear()
                self.update(self._known)
            self[word] = ids
        return ids
