"""Draws as llama2.c's run.c makes them, so that its texts come out: its generator, and its way from logits to a token.

The generator is xorshift64* (Vigna 2016, arXiv:1402.6246): the state, which begins as the seed, is shifted and combined
three times, multiplied, and its upper 32 bits are the number, of which the upper 24 are the fraction.

A token is drawn from p = softmax(logits / temperature) in float32, summed from the first on: the first whose cumulated
probability exceeds the uniform. With 0 < top_p < 1 the tokens stand likeliest first (equals by their id), those below
(1 − top_p) / (V − 1) are left out, the last kept is the first at which the sum exceeds top_p, and the uniform is a share of
that sum.
"""

from functools import cache

from refllm.array_api import namespace

MASK = 2**64 - 1


def number(seed: int, step: int) -> float:
    """The uniform in [0, 1) of a step, counted from 0: a multiple of 2⁻²⁴.

    Raises ValueError for a seed that is not 1 … 2⁶⁴−1: a state of 0 stays 0, and run.c takes the time in its place.
    """
    if not 0 < seed <= MASK:
        raise ValueError(f"seed={seed} cannot seed llama2.c's generator; it must be from 1 to 2⁶⁴ − 1.")
    state, steps = seed, step + 1
    for k in range(steps.bit_length()):
        if steps >> k & 1:
            state = _applied(_steps(k), state)
    return ((state * 0x2545F4914F6CDD1D & MASK) >> 40) / 2**24


def _following(state: int) -> int:
    """The state one step later."""
    state ^= state >> 12
    state ^= (state << 25) & MASK
    return state ^ state >> 27


@cache
def _steps(k: int) -> tuple[int, ...]:
    """Where 2ᵏ steps take each of the 64 bits: a step is linear in the bits, so any number of steps is one matrix."""
    if k == 0:
        return tuple(_following(1 << bit) for bit in range(64))
    half = _steps(k - 1)
    return tuple(_applied(half, image) for image in half)


def _applied(images: tuple[int, ...], state: int) -> int:
    """The sum (exclusive or) of the images of the bits that are set."""
    total = 0
    for bit, image in enumerate(images):
        if state >> bit & 1:
            total ^= image
    return total


def draw(logits, uniforms, temperature: float, top_p: float | None):
    """Draw one token per row. logits: (B, V)    uniforms: (B,) in [0, 1), of float32    Returns (B,) int32"""
    xp = namespace(logits)
    p, uniforms = _probabilities(logits, temperature), uniforms[:, None]
    if top_p is None or top_p >= 1:
        reached, last = xp.cumulative_sum(p, axis=-1), p > 0
        passed = (reached > uniforms) & last
        return _first(passed, otherwise=_last(last))
    order, reached, last = _nucleus(p, top_p)
    passed = reached > uniforms * xp.take_along_axis(reached, last, axis=-1)
    place = _first(passed, otherwise=last[:, 0])
    place = xp.minimum(place, last[:, 0])
    return xp.astype(xp.take_along_axis(order, place[:, None], axis=-1)[:, 0], xp.int32)


def distribution(logits, temperature: float, top_p: float | None):
    """What `draw` draws from: (B, V)"""
    xp = namespace(logits)
    p = _probabilities(logits, temperature)
    if top_p is None or top_p >= 1:
        return p
    order, _, last = _nucleus(p, top_p)
    rank = xp.argsort(order, axis=-1)  # the order that sorts an order is its inverse
    kept = xp.where(rank <= last, p, xp.zeros_like(p))
    return kept / xp.sum(kept, axis=-1, keepdims=True)


def _probabilities(logits, temperature: float):
    """softmax(logits / temperature), its total summed from the first on."""
    xp = namespace(logits)
    logits = logits / temperature
    w = xp.exp(logits - xp.max(logits, axis=-1, keepdims=True))
    return w / xp.cumulative_sum(w, axis=-1)[..., -1:]


def _nucleus(p, top_p: float):
    """The ids likeliest first and their probabilities' sums, both (B, V), and the place of the last one kept: (B, 1)."""
    xp = namespace(p)
    B, V = p.shape
    order = xp.argsort(p, axis=-1, descending=True, stable=True)
    falling = xp.take_along_axis(p, order, axis=-1)
    likely = falling >= (xp.ones_like(p[:, :1]) - top_p) / max(1, V - 1)
    reached = xp.cumulative_sum(xp.where(likely, falling, xp.zeros_like(falling)), axis=-1)
    last = _first(reached > top_p, otherwise=_last(likely))[:, None]
    return order, reached, last


def _first(truths, otherwise):
    """The place of the first true of each row (B, V): (B,) int32; where there is none, that of otherwise: (B,)."""
    xp = namespace(truths)
    place = xp.astype(xp.argmax(xp.astype(truths, xp.int32), axis=-1), xp.int32)
    return xp.where(xp.any(truths, axis=-1), place, otherwise)


def _last(truths):
    """The place of the last true of each row (B, V): (B,) int32; where there is none, 0."""
    xp = namespace(truths)
    places = xp.arange(truths.shape[-1], dtype=xp.int32)
    return xp.max(xp.where(truths, places[None, :], xp.zeros_like(places)[None, :]), axis=-1)
