"""What a tokenizer does to text before anything else."""

import re
from collections.abc import Sequence


def repaired(text: str) -> str:
    """Text that UTF-8 can carry: as it is, or with surrogate pairs joined and lone surrogates made U+FFFD, as tiktoken does."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def bounds_before_repair(text: str) -> Sequence[int]:
    """For each character of the repaired text, and for its end: where it begins in the text as it was."""
    if text.isascii() or len(repaired(text)) == len(text):
        return range(len(text) + 1)  # no surrogate is in it, or none has its other half behind it
    return [*(match.start() for match in _CHARACTER.finditer(text)), len(text)]


_CHARACTER = re.compile("[\ud800-\udbff][\udc00-\udfff]|.", re.DOTALL)
