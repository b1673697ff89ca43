"""Texts to time tokenizers on that every machine has: Python's own sources, and a mix of scripts drawn by seed."""

import string
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from refllm.array_api import generator

# Scripts by the code points that running text uses, with how many of 20 words are written in each.
SCRIPTS: dict[str, tuple[list[int], int]] = {
    "Han": (list(range(0x4E00, 0x5A00)), 6),
    "Kana": (list(range(0x3041, 0x3097)) + list(range(0x30A1, 0x30FB)), 3),
    "Hangul": (list(range(0xAC00, 0xB400)), 3),
    "Cyrillic": (list(range(0x0430, 0x0450)), 3),
    "Emoji": (list(range(0x1F600, 0x1F650)) + [0x1F44D, 0x1F3FD, 0x200D, 0x2764, 0xFE0F], 2),
    "Latin": ([ord(letter) for letter in string.ascii_lowercase], 3),
}
LONGEST_WORD = 8  # characters


def library_sources(n_bytes: int) -> Iterator[str]:
    """The files of Python's standard library in order of their names, until they are n_bytes together."""
    left = n_bytes
    for path in sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py")) + sorted(
        Path(sysconfig.get_paths()["stdlib"]).glob("[a-z]*/**/*.py")
    ):
        if left <= 0:
            return
        if "site-packages" in path.parts or "test" in path.parts:
            continue
        data = path.read_bytes()[:left]
        left -= len(data)
        yield data.decode("utf-8", "replace")


def code(n_bytes: int) -> str:
    """Python source of about n_bytes."""
    return "".join(library_sources(n_bytes))


def mix(n_bytes: int, seed: int) -> str:
    """Words of many scripts, each character drawn anew: no word comes again, which is the worst that a cache can meet."""
    numbers = generator(seed, "bench mix")
    names = [name for name, (_, share) in SCRIPTS.items() for _ in range(share)]
    words: list[str] = []
    size = 0
    while size < n_bytes:
        points, _ = SCRIPTS[names[numbers.integers(len(names))]]
        word = "".join(chr(points[i]) for i in numbers.integers(0, len(points), numbers.integers(1, LONGEST_WORD + 1)))
        word += " ,.\n"[numbers.choice(4, p=[0.8, 0.08, 0.08, 0.04])]
        words.append(word)
        size += len(word.encode())
    return "".join(words)


def random_word(n_letters: int, seed: int) -> str:
    """One word of so many letters drawn alike."""
    return "".join(string.ascii_lowercase[i] for i in generator(seed, "bench word").integers(0, 26, n_letters))
