"""Learning-rate schedules: pure functions of the step.

    warm-up    (step + 1) / (warmup + 1)                          for step < warmup
    cosine     f + (1 − f) · (1 + cos(π·t)) / 2                   Loshchilov & Hutter 2016, arXiv:1608.03983, eq. 5
    wsd        1, then f + (1 − f) · (1 − t) over the last steps  warm-up–stable–decay: Hu et al. 2024, arXiv:2404.06395;
                                                                  the linear decay: Hägele et al. 2024, arXiv:2405.18392
    constant   1

Each is a share of the peak rate; f is the share where the decay ends and t, from 0 to 1, how much of it has passed.
A step counts from 0: the first update uses step 0, and no step has rate 0 for being the first of its warm-up.
"""

import math


def warmup(step: int, warmup_steps: int) -> float:
    """The share of the peak during warm-up, which rises linearly and first reaches 1 at `warmup_steps`."""
    return min(1.0, (step + 1) / (warmup_steps + 1))


def cosine(step: int, begin: int, end: int, final_fraction: float) -> float:
    """1 until `begin`, then half a cosine down to final_fraction at `end`, and that from there on."""
    return final_fraction + (1 - final_fraction) * (1 + math.cos(math.pi * passed(step, begin, end))) / 2


def linear(step: int, begin: int, end: int, final_fraction: float) -> float:
    """1 until `begin`, then a straight line down to final_fraction at `end`, and that from there on."""
    return final_fraction + (1 - final_fraction) * (1 - passed(step, begin, end))


def constant(step: int, begin: int, end: int, final_fraction: float) -> float:
    """1 always."""
    return 1.0


def passed(step: int, begin: int, end: int) -> float:
    """How much of the way from begin to end a step has gone, within 0 … 1."""
    return min(1.0, max(0.0, (step - begin) / max(1, end - begin)))


SCHEDULES = {"cosine": cosine, "constant": constant, "wsd": linear}


def learning_rate(
    step: int, *, peak: float, schedule: str, steps: int, warmup_steps: int, decay_steps: int | None, final_fraction: float
) -> float:
    """The rate of the update that makes step into step + 1.

    decay_steps: how long the decay takes. A cosine begins it where the warm-up ends, and takes all the steps that are left
    if it is None; wsd ends it at the last of `steps`, and takes a fifth of them if it is None.
    """
    if schedule == "wsd":
        end = steps
        begin = end - (decay_steps or max(1, steps // 5))
    else:
        begin = warmup_steps
        end = begin + decay_steps if decay_steps else steps
    return peak * warmup(step, warmup_steps) * SCHEDULES[schedule](step, begin, end, final_fraction)
