"""The general category of every Unicode code point, frozen as the reference tokenizers see it.

make_unicode_categories.py makes the table, which is Unicode 16's.
"""

import functools
import zlib
from pathlib import Path

import numpy as np

PATH = Path(__file__).with_name("unicode_categories.bin")
N_CODE_POINTS = 0x110000
CATEGORIES = (
    "Cn",  # unassigned
    *("Lu", "Ll", "Lt", "Lm", "Lo"),  # letters: upper, lower, title case, modifiers, without case
    *("Mn", "Mc", "Me"),  # marks
    *("Nd", "Nl", "No"),  # numbers
    *("Pc", "Pd", "Ps", "Pe", "Pi", "Pf", "Po"),  # punctuation
    *("Sm", "Sc", "Sk", "So"),  # symbols
    *("Zs", "Zl", "Zp"),  # separators
    *("Cc", "Cf", "Cs", "Co"),  # controls, formats, surrogates, private use
)


@functools.cache
def unicode_categories() -> np.ndarray:
    """The place in CATEGORIES of each code point's category: (0x110000,) uint8."""
    packed = zlib.decompress(PATH.read_bytes())
    n_runs = len(packed) // 5
    lengths = np.frombuffer(packed, "<u4", n_runs)
    return np.repeat(np.frombuffer(packed, np.uint8, n_runs, offset=4 * n_runs), lengths)


@functools.cache
def members(name: str) -> np.ndarray:
    r"""The code points of a category ("Lu"), of all that begin with one letter ("L"), or of whitespace ("s"): (0x110000,) bool.

    Raises ValueError for a name that is none of these.
    """
    if name == "s":
        white = members("Z").copy()
        white[[*b"\t\n\v\f\r", 0x85]] = True
        return white
    places = [place for place, category in enumerate(CATEGORIES) if category == name or category[0] == name]
    if not places:
        raise ValueError(f"{name!r} is not a general category of Unicode.")
    return np.isin(unicode_categories(), places)
