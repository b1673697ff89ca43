"""Stop strings in a text that comes in pieces: it ends where the first of them is complete.

What may still become a stop string is held back, and released once it cannot: of "abc" with the stop string "cd", "c" waits.
A text is judged character by character, so where its pieces are cut changes nothing.
"""

from collections.abc import Collection


class StopStrings:
    """Lets a text through up to the first of some strings, which is no part of it.

    strings: at least one character each    keep: whether the string that ends the text is a part of it
    Raises ValueError for an empty string, which would end every text before it begins.
    """

    def __init__(self, strings: Collection[str] = (), keep: bool = False):
        if isinstance(strings, str):
            raise ValueError(f"the stop strings are one string, {strings!r}; give a list of them.")
        if not all(strings):
            raise ValueError("a stop string is empty, and so is in every text; give at least one character.")
        self.strings, self.keep = tuple(strings), keep
        self.found: str | None = None  # the one that ended the text
        self._held = ""  # the longest end of the text so far with which a stop string begins

    def push(self, piece: str) -> str:
        """What is certain of the text once this piece has come; nothing after its end."""
        if self.found is not None or not self.strings:
            return "" if self.found is not None else piece
        text = self._held + piece
        ends = [(at + len(s), -len(s), s) for s in self.strings if (at := text.find(s)) >= 0]
        if ends:
            end, _, self.found = min(ends)  # of those complete at the same character, the longest
            self._held = ""
            return text[:end] if self.keep else text[: end - len(self.found)]
        n = self._begun(text)
        self._held = text[len(text) - n :]
        return text[: len(text) - n]

    def finish(self) -> str:
        """What was held back of a text that has ended otherwise."""
        rest, self._held = self._held, ""
        return rest

    def _begun(self, text: str) -> int:
        """How many characters at the end of the text are the beginning of a stop string, at most."""
        longest = min(len(text), max(map(len, self.strings)) - 1)
        return next((n for n in range(longest, 0, -1) if any(s.startswith(text[-n:]) for s in self.strings)), 0)
