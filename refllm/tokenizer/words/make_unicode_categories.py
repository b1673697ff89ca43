r"""Make unicode_categories.bin, the frozen categories of pre-tokenization, from tiktoken's own regular expressions.

    python -m refllm.tokenizer.words.make_unicode_categories

Unicode versions differ between Python, the package regex and the tokenizers people use.
So the categories are frozen as the reference tokenizers see them (tiktoken 0.14 and tokenizers 0.23 agree on \p{L}, \p{N} and \s)
and travel with the package as runs of equal category.
"""

import zlib

import numpy as np

from refllm.tokenizer.words.unicode_categories import CATEGORIES, N_CODE_POINTS, PATH


def matched(pattern: str) -> list[int]:
    """The code points that a one-character pattern matches, as tiktoken sees it; surrogates are none that it can see."""
    import tiktoken

    byte_ranks = {bytes([byte]): byte for byte in range(256)}
    encoding = tiktoken.Encoding("category", pat_str=pattern, mergeable_ranks=byte_ranks, special_tokens={})
    everything = "".join(chr(point) for point in range(N_CODE_POINTS) if not 0xD800 <= point < 0xE000)
    return [ord(character) for character in encoding.decode(encoding.encode_ordinary(everything))]  # drops what does not match


def categorise() -> np.ndarray:
    """The place in CATEGORIES of each code point's category: (0x110000,) uint8."""
    categories = np.zeros(N_CODE_POINTS, np.uint8)
    categories[0xD800:0xE000] = CATEGORIES.index("Cs")
    for place, category in enumerate(CATEGORIES):
        if category not in ("Cn", "Cs"):
            categories[matched(rf"\p{{{category}}}")] = place
    return categories


def pack(categories: np.ndarray) -> bytes:
    """Runs of equal category: their lengths as little-endian uint32, then their categories as uint8, compressed by zlib."""
    starts = np.flatnonzero(np.diff(categories, prepend=np.uint8(255)))
    lengths = np.diff(starts, append=categories.size).astype("<u4")
    return zlib.compress(lengths.tobytes() + categories[starts].tobytes(), 9)


if __name__ == "__main__":
    PATH.write_bytes(pack(categorise()))
    print(f"{PATH}: {PATH.stat().st_size} bytes")
