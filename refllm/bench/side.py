"""How one side of a comparison works, whatever it times."""

from collections.abc import Callable
from typing import Any, NamedTuple


class Side(NamedTuple):
    """All return what they found by name."""

    first: Callable[[], dict[str, Any]]  # the first step, untimed: what all sides must agree on
    run: Callable[[], dict[str, float]]  # one timed run: seconds
    figures: Callable[[], dict[str, float]] = dict  # what else there is to say, after the last run
