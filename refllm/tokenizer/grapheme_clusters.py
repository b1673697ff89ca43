"""What a reader takes for one character: grapheme clusters (Unicode standard annex 29), as far as short ones go.

The rules for emoji sequences, flags and Indic conjuncts are left out: they join only to clusters of six bytes of UTF-8 or more.
"""

import functools
import re

from refllm.tokenizer.character_map import one_of
from refllm.tokenizer.words.unicode_categories import members

# What the annex adds to the general categories, or takes from them (GraphemeBreakProperty.txt, Unicode 16)
OTHER_EXTEND = (
    *(0x09BE, 0x09D7, 0x0B3E, 0x0B57, 0x0BBE, 0x0BD7, 0x0CC0, 0x0CC2, 0x0CC7, 0x0CC8, 0x0CCA, 0x0CCB, 0x0CD5, 0x0CD6),
    *(0x0D3E, 0x0D57, 0x0DCF, 0x0DDF, 0x1715, 0x1734, 0x1B35, 0x1B3B, 0x1B3D, 0x1B43, 0x1B44, 0x1BAA, 0x1BF2, 0x1BF3),
    *(0x200C, 0x302E, 0x302F, 0xA953, 0xA9C0, 0xFF9E, 0xFF9F, 0x200D, *range(0x1F3FB, 0x1F400)),
    *range(0xE0020, 0xE0080),
)
NO_SPACING_MARK = (
    *(0x102B, 0x102C, 0x1038, *range(0x1062, 0x1065), *range(0x1067, 0x106E), 0x1083, *range(0x1087, 0x108D), 0x108F),
    *(*range(0x109A, 0x109D), 0x1A61, 0x1A63, 0x1A64, 0xAA7B, 0xAA7D, 0x11720, 0x11721),
)
THAI_AND_LAO_AM = (0x0E33, 0x0EB3)
IGNORED = (0x2065, *range(0xFFF0, 0xFFF9), 0xE0000, *range(0xE0002, 0xE0020), *range(0xE0080, 0xE0100), *range(0xE01F0, 0xE1000))
PREPEND = (
    *(*range(0x600, 0x606), 0x6DD, 0x70F, 0x890, 0x891, 0x8E2, 0xD4E, 0x110BD, 0x110CD, 0x111C2, 0x111C3, 0x113D1),
    *(0x1193F, 0x11941, *range(0x11A84, 0x11A8A), 0x11D46, 0x11F02),
)
HANGUL_L = (*range(0x1100, 0x1160), *range(0xA960, 0xA97D))
HANGUL_V = (*range(0x1160, 0x11A8), *range(0xD7B0, 0xD7C7))
HANGUL_T = (*range(0x11A8, 0x1200), *range(0xD7CB, 0xD7FC))
HANGUL_LV = tuple(range(0xAC00, 0xD7A4, 28))
HANGUL_LVT = tuple(point for point in range(0xAC00, 0xD7A4) if point % 28 != 0xAC00 % 28)


def clusters(text: str) -> list[str]:
    """The grapheme clusters of a text, in order; joined, they are the text."""
    return pattern().findall(text)


@functools.cache
def pattern() -> re.Pattern:
    """Finds the next cluster."""
    marks = {point for name in ("Mn", "Me", "Mc") for point in members(name).nonzero()[0].tolist()}
    extend = one_of(map(chr, marks - set(NO_SPACING_MARK) | {*OTHER_EXTEND, *THAI_AND_LAO_AM}))
    kinds = {point for name in ("Cc", "Cf", "Zl", "Zp") for point in members(name).nonzero()[0].tolist()}
    control = one_of(map(chr, kinds - set(PREPEND) - set(OTHER_EXTEND) | set(IGNORED)))
    parts = (HANGUL_L, HANGUL_V, HANGUL_T, HANGUL_LV, HANGUL_LVT, PREPEND)
    L, V, T, LV, LVT, before = (one_of(map(chr, points)) for points in parts)
    syllable = f"{L}*(?:{V}+|{LV}{V}*|{LVT}){T}*|{L}+|{T}+"
    other = f"(?!{control})(?s:.)"
    return re.compile(f"\r\n|{control}|{before}*(?:{syllable}|{other}){extend}*|{before}+{extend}*|(?s:.)")
