"""A check that the settings of every experiment share."""

import dataclasses
from typing import Any


def require_whole_numbers(settings: Any, **least: int) -> None:
    """Raise ValueError for a whole number below 1, and for a list that is empty, or has one below 1 or twice.

    least: another least value, by the setting's name
    """
    for name in (field.name for field in dataclasses.fields(settings)):
        value, needed = getattr(settings, name), least.get(name, 1)
        if isinstance(value, int) and value < needed:
            raise ValueError(f"{name}={value} must be at least {needed}.")
        if isinstance(value, tuple) and (not value or min(value) < needed or len(set(value)) < len(value)):
            raise ValueError(f"{name}={value} must be whole numbers of at least {needed}, one or more, and each of them once.")
