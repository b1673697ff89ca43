"""Numbers as text, for tables and sentences."""

from collections.abc import Mapping
from typing import Any

NOTHING = 1e-12  # what is smaller stands as 0: rounding left it


def number(value: Any) -> str:
    """A value to four digits, whole numbers below 10⁹ in full; lists and mappings flat, None empty."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {number(entry)}" for key, entry in value.items())
    if isinstance(value, list | tuple):
        return " ".join(map(number, value))
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "" if value is None else str(value)
    if isinstance(value, int) and abs(value) < 1e9:
        return f"{value:,}"
    return f"{value:.4g}" if abs(value) >= NOTHING else "0"
