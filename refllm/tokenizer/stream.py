"""Text from token ids as they come, in whole characters."""

import codecs
from collections.abc import Iterable

from refllm.tokenizer.tokenizer import Tokenizer


class StreamDecoder:
    """Holds back the bytes of an unfinished UTF-8 character until the ids that complete it have come.

    The pieces joined, with that of `finish`, equal tokenizer.decode of all ids; bytes that are no UTF-8 become U+FFFD.
    context: ids that came before and are not to be told again, such as a prompt's
    skip_special: whether special tokens are left out
    """

    def __init__(self, tokenizer: Tokenizer, context: Iterable[int] = (), skip_special: bool = False):
        self._tokenizer = tokenizer
        self._skip_special = skip_special
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._begins = True
        for id in context:
            self.push(id)

    def push(self, id: int) -> str:
        """The characters that this id completes; often none."""
        skipped = self._skip_special and self._tokenizer.is_special(id)
        if skipped and self._tokenizer.added_are_words:
            return ""
        (token,) = self._tokenizer.stretches([id], self._begins)
        self._begins = self._tokenizer.ends_stretch(id)
        return "" if skipped else self._decoder.decode(token)

    def finish(self) -> str:
        """What is left at the end: U+FFFD for an unfinished character, else nothing. The decoder is then as new."""
        self._begins = True
        return self._decoder.decode(b"", final=True)
