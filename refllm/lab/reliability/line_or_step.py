"""Does something change steadily along an axis, or at once? A straight line or a step between two levels, each put to the test.

    T = ln (squared error of the best step / squared error of the best line)

The two are not nested and the step's place is searched for, so no table tells how T spreads. It is simulated (Cox 1962, Journal
of the Royal Statistical Society B 24, 406–424; Williams 1970, Biometrics 26, 23–32): from the fitted line with normal noise as
large as what it leaves over, and from the fitted step likewise. A line is rejected where T is lower than 95 % of the line's own,
a step where T is higher than 95 % of the step's. Where the values scatter neither is; a curve that is neither may reject both.
"""

import math
from typing import Any, NamedTuple

import numpy as np

from refllm.array_api import generator
from refllm.lab.verdict import SIGNIFICANT

FEWEST = 5  # points: a step has three constants
LEAST = 1e-12  # a squared error that counts as none


class Shape(NamedTuple):
    """How likely values like these are if they lie about a line, and about a step."""

    line: float  # the p-value of a line
    step: float  # … of a step

    @property
    def is_no_line(self) -> bool:
        """Whether a line is rejected at 5 %."""
        return self.line <= SIGNIFICANT

    @property
    def is_no_step(self) -> bool:
        """Whether a step is rejected at 5 %."""
        return self.step <= SIGNIFICANT

    @property
    def name(self) -> str:
        """What is left."""
        names = {(False, False): "a line or a step", (False, True): "a line", (True, False): "a step", (True, True): "neither"}
        return names[self.is_no_line, self.is_no_step]


def line_or_step(x: Any, y: Any, simulations: int = 2000, seed: int = 0) -> Shape:
    """The shape of y (n,) over x (n,), in rising order. Raises ValueError for fewer than five points, or others."""
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    n = len(x)
    if n < FEWEST or y.shape != x.shape or np.any(np.diff(x) <= 0):
        raise ValueError(f"telling a line from a step needs {FEWEST} points or more in rising order, not {n}; take more sizes.")
    line, step, place = (found[0] for found in _errors(x, y[None]))
    noise = generator(seed, "line or step").standard_normal((simulations, n))
    steady = np.polyval(np.polyfit(x, y, 1), x) + noise * math.sqrt(line / (n - 2))
    jump = np.where(np.arange(n) < place, y[:place].mean(), y[place:].mean()) + noise * math.sqrt(step / (n - 3))
    own = _statistic(line, step)
    lower, higher = _statistic(*_errors(x, steady)[:2]) <= own, _statistic(*_errors(x, jump)[:2]) >= own
    return Shape(*((1 + float(far.sum())) / (1 + simulations) for far in (lower, higher)))


def _statistic(line: Any, step: Any) -> Any:
    return np.log((step + LEAST) / (line + LEAST))


def _errors(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The squared errors of the best line and of the best step for each of y (R, n), and how many points lie before the step."""
    n, centred = len(x), x - x.mean()
    rest = y - y.mean(axis=1, keepdims=True)
    line = ((rest - np.outer(rest @ centred / (centred @ centred), centred)) ** 2).sum(axis=1)
    steps = np.stack([y[:, :i].var(axis=1) * i + y[:, i:].var(axis=1) * (n - i) for i in range(1, n)])
    return line, steps.min(axis=0), steps.argmin(axis=0) + 1
