"""Make bert_characters.bin, what BERT's basic tokenizer makes of every character, by asking Hugging Face's tokenizers.

    python -m refllm.tokenizer.words.make_bert_characters

Its Rust libraries know different versions of Unicode (marks and punctuation are those of Unicode 8, decompositions those of 9),
and Python's own version grows. So what it does is frozen, as tokenizers 0.23 does it.
"""

import zlib
from collections.abc import Iterable

import numpy as np

from refllm.tokenizer.words.bert_characters import DECOMPOSED, DROPPED, MARK, ORDERED, PATH, PUNCTUATION
from refllm.tokenizer.words.unicode_categories import N_CODE_POINTS

POINTS = [point for point in range(N_CODE_POINTS) if not 0xD800 <= point < 0xE000]
CLASS_1, CLASS_240 = "\u0334", "\u0345"  # characters of the lowest and the highest combining class


def kinds() -> np.ndarray:
    """The flags of every code point: (0x110000,) uint8."""
    from tokenizers import normalizers, pre_tokenizers

    off = {"clean_text": False, "handle_chinese_chars": False, "strip_accents": False, "lowercase": False}
    clean = normalizers.BertNormalizer(**off | {"clean_text": True}).normalize_str
    strip = normalizers.BertNormalizer(**off | {"strip_accents": True}).normalize_str
    decompose = normalizers.NFD().normalize_str
    split = pre_tokenizers.BertPreTokenizer().pre_tokenize_str
    flags = np.zeros(N_CODE_POINTS, np.uint8)
    for point in POINTS:
        character = chr(point)
        flags[point] |= DROPPED * (clean(character) == "")
        flags[point] |= PUNCTUATION * (len(split(f"a{character}a")) == 3)
        flags[point] |= MARK * (strip(character) == "")
        flags[point] |= DECOMPOSED * (decompose(character) != character)
        if decompose(character) == character:
            moves = decompose(character + CLASS_1) != character + CLASS_1 or decompose(CLASS_240 + character)[0] == character
            flags[point] |= ORDERED * moves
    return flags


def lower_cases() -> Iterable[tuple[int, int]]:
    """The code points that lower case turns into one other, and which."""
    from tokenizers import normalizers

    lower = normalizers.Lowercase().normalize_str
    for point in POINTS:
        if len(lower(chr(point))) == 1 and lower(chr(point)) != chr(point):
            yield point, ord(lower(chr(point)))


def pack(flags: np.ndarray, pairs: np.ndarray) -> bytes:
    """Flags and pairs, compressed by zlib.

    Little-endian uint32: the number of runs of equal flags and of pairs (code point, its lower case), the length of each run, the
    pairs one after another. Then the flags of each run as uint8.
    """
    starts = np.flatnonzero(np.diff(flags, prepend=np.uint8(255)))
    lengths = np.diff(starts, append=flags.size)
    numbers = np.concatenate([[starts.size, len(pairs)], lengths, pairs.ravel()]).astype("<u4")
    return zlib.compress(numbers.tobytes() + flags[starts].tobytes(), 9)


if __name__ == "__main__":
    PATH.write_bytes(pack(kinds(), np.array(list(lower_cases()))))
    print(f"{PATH}: {PATH.stat().st_size} bytes")
