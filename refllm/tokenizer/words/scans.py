"""What a character inherits from those before it or behind it, for all characters at once.

A finite automaton reads a text one character after another. But each character is a map from states to states, maps compose
associatively, and so all prefixes of a text are composed in log₂ N passes (Hillis & Steele 1986, doi:10.1145/7902.7903).
"""

from collections.abc import Sequence

from refllm.array_api import namespace

N_STATES = 4


def state_map(images: Sequence[int]) -> int:
    """The map that takes state s to images[s], as a number: two bits for each state."""
    return sum(image << 2 * state for state, image in enumerate(images))


def states_after(maps):
    """The state of an automaton after each character: (N,) int32; it begins in state 0.

    maps: (N,) int32, the state_map of each character
    """
    xp = namespace(maps)
    step = 1
    while step < maps.shape[0]:
        maps = xp.concat([maps[:step], composed(maps[:-step], maps[step:])], axis=0)
        step = 2 * step
    return maps & 3


def composed(first, second):
    """The map that is first one and then another: (N,) int32."""
    both = first * 0
    for state in range(N_STATES):
        image = (first >> 2 * state) & 3
        both = both | ((second >> 2 * image) & 3) << 2 * state
    return both


def latest(values, known, start):
    """The value where one was last known, at each place or before it: (N,), start where none was."""
    xp = namespace(values)
    values = xp.concat([xp.full((1,), start, dtype=values.dtype), values], axis=0)
    places = xp.arange(1, values.shape[0], dtype=xp.int32)
    return xp.take(values, xp.cumulative_max(places * xp.astype(known, xp.int32)), axis=0)


def coming(values, known, end):
    """The value where one is known next, at each place or behind it: (N,), end where none is."""
    xp = namespace(values)
    return xp.flip(latest(xp.flip(values, axis=0), xp.flip(known, axis=0), end), axis=0)


def place_in_run(inside):
    """How many places of the same run stand before each that is inside: (N,) int32; 0 elsewhere."""
    xp = namespace(inside)
    places = xp.arange(inside.shape[0], dtype=xp.int32)
    return places - latest(places, ~inside, -1) - xp.astype(inside, xp.int32)
