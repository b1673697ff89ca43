"""Make unicode_classes.bin, the frozen character classes of pre-tokenization, from tiktoken's own regular expressions.

    python -m refllm.tokenizer.make_unicode_classes

Unicode versions differ between Python, the package regex and the tokenizers people use.
So the classes are frozen as the reference tokenizers see them (tiktoken 0.14 and tokenizers 0.23 agree on every code point)
and travel with the package as runs of equal class.
"""

import zlib

import numpy as np

from refllm.tokenizer.unicode_classes import LETTER, LOWER, MARK, N_CODE_POINTS, NUMBER, PATH, SPACE, UPPER

PATTERNS = {
    UPPER: r"[\p{Lu}\p{Lt}]",
    LOWER: r"\p{Ll}",
    LETTER: r"[\p{Lm}\p{Lo}]",
    MARK: r"\p{M}",
    NUMBER: r"\p{N}",
    SPACE: r"\s",
}


def members(pattern: str) -> list[int]:
    """The code points that a one-character pattern matches, as tiktoken sees it."""
    import tiktoken

    byte_ranks = {bytes([byte]): byte for byte in range(256)}
    encoding = tiktoken.Encoding("class", pat_str=pattern, mergeable_ranks=byte_ranks, special_tokens={})
    everything = "".join(chr(point) for point in range(N_CODE_POINTS) if not 0xD800 <= point < 0xE000)
    return [ord(character) for character in encoding.decode(encoding.encode_ordinary(everything))]  # drops what does not match


def classify() -> np.ndarray:
    """The class of every code point, (0x110000,) uint8."""
    classes = np.zeros(N_CODE_POINTS, np.uint8)
    for kind, pattern in PATTERNS.items():
        points = members(pattern)
        if np.any(classes[points]):
            raise ValueError(f"{pattern} overlaps another class; the table holds one class per code point.")
        classes[points] = kind
    return classes


def pack(classes: np.ndarray) -> bytes:
    """Runs of equal class: their lengths as little-endian uint32, then their classes as uint8, compressed by zlib."""
    starts = np.flatnonzero(np.diff(classes, prepend=np.uint8(255)))
    lengths = np.diff(starts, append=classes.size).astype("<u4")
    return zlib.compress(lengths.tobytes() + classes[starts].tobytes(), 9)


if __name__ == "__main__":
    PATH.write_bytes(pack(classify()))
    print(f"{PATH}: {PATH.stat().st_size} bytes")
