"""The margin of a decision: how far the logits of a step may be off before another token can be chosen.

    greedy   (largest − second) / 2          a draw   temperature / 2 · the log-odds from u to the nearer boundary

When every logit may lie d nats beside its value, each is an interval. Biases, penalties and the temperature are rising
functions of one logit, so they carry intervals over exactly; `intervals` carries them through the cuts. The token is sure
if it is chosen at both ends of what then remains, and the largest such d is found by bisection.
"""

import math
from collections.abc import Callable

import numpy as np

from refllm.decoding import intervals
from refllm.decoding.intervals import Interval
from refllm.decoding.memory import Memory
from refllm.decoding.sampler import Sampler
from refllm.decoding.sampling import adjusted, sample

FURTHEST = 2.0**30  # nats: a token that is sure at this distance is the only one there is
NEAREST = 2.0**-44  # nats: what is nearer than this cannot be told from a tie in float64
BISECTIONS = 44  # of an interval whose upper end is twice its lower


def margin(logits, uniform: float, sampler: Sampler, memory: Memory | None = None, allowed=None, slack: float = 0.0) -> float:
    """By how many nats each logit may move, all at once and in any direction, with the same token chosen.

    logits: (V,) float64 NumPy array    uniform: in [0, 1), which decides the draw
    memory: of one row, in NumPy, as `sample` takes it, and taken as exact    allowed: (V,) bool, or None
    slack: by how much a sum of probabilities, or a surprise in nats, may be off in the sampler itself and change nothing either
    Returns a lower bound, exact for greedy choice and for a draw without cuts; 0 at a tie, ∞ where only one token can come.
    Raises ValueError where `sample` chooses none.
    """
    sure = certainty(logits, uniform, sampler, memory, allowed, slack)
    least = 1.0
    while sure(least):
        least *= 2
        if least > FURTHEST:
            return math.inf
    while not sure(least):
        least /= 2
        if least < NEAREST:
            return 0.0
    step = least / 2
    for _ in range(BISECTIONS):
        least, step = least + step * sure(least + step), step / 2
    return least


def certainty(
    logits, uniform: float, sampler: Sampler, memory: Memory | None = None, allowed=None, slack: float = 0.0
) -> Callable[[float], bool]:
    """A function from nats to whether the token is sure to stay when each logit moves by that; arguments as of `margin`."""
    z = np.asarray(logits, dtype=np.float64)
    allowed = None if allowed is None else np.asarray(allowed)[None, :]
    token = int(sample(z[None, :], np.asarray([uniform]), sampler, memory, allowed)[0][0])
    if token < 0:
        raise ValueError("the logits are not finite numbers, or no token is allowed; no token is chosen, so there is no margin.")
    mu = None if memory is None or memory.mu is None else float(memory.mu[0])

    def sure(d: float) -> bool:
        with np.errstate(all="ignore"):  # what overflows is not sure
            ends = (adjusted((z + move)[None, :], sampler, memory, allowed)[0] for move in (-d, d))
            return is_sure(token, Interval(*ends), uniform, sampler, mu, slack)

    return sure


def sampling_slack(logits, sampler: Sampler) -> float:
    """By how much the sums of probabilities that a sampler computes in float32 may be off, for logits (V,) after all penalties.

    Each of V terms rounds when it is added and when the total is; the exponential of x by its own few eps and by eps · |x|.
    """
    z = np.asarray(logits, dtype=np.float64)
    spread = (np.max(z) - z[np.isfinite(z)]) / (sampler.temperature or 1.0)
    furthest = float(np.max(spread, initial=0.0, where=spread < 104))  # exp(−104) is no number of float32
    return 2.0**-23 * (2 * len(z) + 20 + 2 * furthest)


def is_sure(token: int, logits: Interval, uniform: float, sampler: Sampler, mu: float | None, slack: float) -> bool:
    """Whether all logits within the intervals, which have been adjusted, choose the token."""
    if sampler.temperature == 0:
        return bool(logits.low[token] > np.max(np.delete(logits.high, token), initial=-np.inf))
    tempered = Interval(logits.low / sampler.temperature, logits.high / sampler.temperature)
    if sampler.draws == "llama2.c" and sampler.top_p is not None and sampler.top_p < 1:
        return is_drawn_in_order(token, tempered, uniform, sampler.top_p, slack)
    ids = np.arange(len(tempered.low))
    left = intervals.after_cuts(tempered, sampler, mu, slack)
    return is_drawn(token, left, ids < token, ids < token, uniform, slack)


def is_drawn(token: int, logits: Interval, may_precede, must_precede, uniform: float, slack: float) -> bool:
    """Whether the uniform draws the token from every distribution within the intervals.

    may_precede, must_precede: (V,) bool, which tokens stand before it in the order of the sum
    """
    w = intervals.weights(logits)
    before, others = np.sum(w.most[may_precede]), np.sum(w.least[~may_precede])
    through, behind = np.sum(w.least[must_precede]) + w.least[token], np.sum(w.most[~must_precede]) - w.most[token]
    begins = before == 0 or before / (before + others) + slack <= uniform
    ends = not np.any(logits.high[~must_precede & (np.arange(len(w.most)) != token)] > -np.inf)
    return bool(logits.low[token] > -np.inf and begins and (ends or through / (through + behind) - slack > uniform))


def is_drawn_in_order(token: int, logits: Interval, uniform: float, p: float, slack: float) -> bool:
    """The same as llama2.c draws with a top_p: the likeliest first.

    Those below (1 − p) / (V − 1), which it leaves out, are less than 1 − p together, so the sum exceeds p before them anyway.
    """
    place = intervals.likeliest_first(logits)
    left = intervals.first_of(logits, place, p, slack)
    may, must = place.low <= place.high[token], place.high < place.low[token]
    may[token] = False
    return is_drawn(token, left, may, must, uniform, slack)
