"""Text from token ids as they come, in whole characters."""

import codecs

from refllm.tokenizer.tokenizer import Tokenizer


class StreamDecoder:
    """Holds back the bytes of an unfinished UTF-8 character until the ids that complete it have come.

    The pieces joined, with that of `finish`, equal tokenizer.decode of all ids; bytes that are no UTF-8 become U+FFFD.
    """

    def __init__(self, tokenizer: Tokenizer):
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, id: int) -> str:
        """The characters that this id completes; often none."""
        return self._decoder.decode(self._tokenizer.bytes_of(id))

    def finish(self) -> str:
        """What is left at the end: U+FFFD for an unfinished character, else nothing. The decoder is then as new."""
        return self._decoder.decode(b"", final=True)
