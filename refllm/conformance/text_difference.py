"""The same text on two backends, and where they part: which result of which layer is the first beyond its error bound.

Both sides write a text from the same seed. Then each reads the tokens that both agree on once more, as it did, the prompt at
once and then token by token, while every op is traced; and the float64 oracle reads them too and knows how far a right result
may lie from its own. So it is clear who is wrong, and where two right sides part: at a decision nearer than the bound.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from refllm.array_api import kernels
from refllm.decoding import generate, new_cache
from refllm.decoding.sampler import Sampler
from refllm.decoding.sampling import sample
from refllm.models.model import Model

from . import bounded
from .decisions import Choice, Decision, choices, judged, nearest
from .scatter import scattered
from .trace import HEAD, Place, by_position, traced

LOGITS = Place(HEAD, "logits", 0)
DTYPES = ("float32", "float16", "bfloat16")  # for which there are bounds
Rows = Mapping[Place, Any]  # results by position, (n, features): of the last n positions read


@dataclass(frozen=True)
class Side:
    """A model on a backend, with its kernels or without."""

    name: str
    model: Model
    plain: bool = False  # with the readable bodies in place of the backend's kernels

    def in_force(self) -> AbstractContextManager:
        return kernels(self.model.backend, {}) if self.plain else nullcontext()


class Fault(NamedTuple):
    """A number that lies beyond its bound, with all that went into a position before right on this side."""

    side: int  # 0 or 1
    place: Place
    position: int  # among the tokens, from 0
    value: float  # where the error is the largest share of the bound
    exact: float
    bound: float

    @property
    def share(self) -> float:
        return abs(self.value - self.exact) / self.bound


class Apart(NamedTuple):
    """How far the sides are from the oracle and from each other in one layer, as shares of the bound, at most."""

    layer: str
    first: float
    second: float
    between: float


class Difference(NamedTuple):
    """What came of a comparison."""

    prompt: list[int]
    texts: tuple[list[int], list[int]]
    parted: int | None  # the first step at which they differ
    decision: Decision  # of that step, or the nearest of all
    logits: list[np.ndarray]  # of both sides and the oracle: (steps, V)
    layers: list[Apart]
    fault: Fault | None  # the first of either side
    misdrawn: int | None  # the side, 0 or 1, that chose at that step what its own logits do not choose

    @property
    def is_right(self) -> bool:
        """Whether all that differs is within the bounds."""
        return self.fault is None and self.misdrawn is None


def dtype_of(model: Model) -> str:
    """The name of its parameters' dtype."""
    xp, dtype = model.backend.xp, model.params["embedding"].dtype
    return next(name for name in (*DTYPES, "float64") if name in xp.dtypes() and getattr(xp, name) == dtype)


def compare(
    sides: tuple[Side, Side], prompt: Sequence[int], n_tokens: int, sampler: Sampler, seed: int, stop: Sequence[int] = ()
) -> Difference:
    """Write the same text on two sides, and find where they differ.

    Raises ValueError where the sides compute in different dtypes or in one without bounds, and as `generate` does.
    """
    dtypes = [dtype_of(side.model) for side in sides]
    if dtypes[0] != dtypes[1]:
        raise ValueError(
            f"{sides[0].name} computes in {dtypes[0]} and {sides[1].name} in {dtypes[1]}; choose one for both, such as float32."
        )
    if dtypes[0] not in DTYPES:
        raise ValueError(f"there are no error bounds for {dtypes[0]}; choose one of {', '.join(DTYPES)}.")
    prompt = list(prompt)
    one, other = (written(side, prompt, n_tokens, sampler, seed, stop) for side in sides)
    parted = next((i for i in range(max(len(one), len(other))) if one[i : i + 1] != other[i : i + 1]), None)
    common = one[: len(one) - 1 if parted is None else parted]
    read = [read_again(side, prompt, common, len(prompt) + n_tokens - 1) for side in sides]
    oracle = exact(sides[0].model, [*prompt, *common], dtypes[0])
    decided, logits = oracle[LOGITS][len(prompt) - 1 :, :], [rows[LOGITS] for rows in read]
    chosen = list(choices(decided.value, prompt, one, sampler, seed))
    decision = nearest(chosen, decided, sampler) if parted is None else judged(chosen[parted], decided, sampler)
    fault, misdrawn = first_fault(read, oracle, len(prompt)), None
    if parted is not None and fault is None:
        tokens = [text[parted] if parted < len(text) else None for text in (one, other)]
        wrong = [draws_wrong(chosen[parted], *pair, sampler, decided.dtype) for pair in zip(logits, tokens, strict=True)]
        misdrawn = wrong.index(True) if any(wrong) else None
    return Difference(prompt, (one, other), parted, decision, [*logits, decided.value], layers(read, oracle), fault, misdrawn)


def draws_wrong(choice: Choice, logits: np.ndarray, token: int | None, sampler: Sampler, dtype: bounded.Float) -> bool:
    """Whether a side chose a token that its own logits (n, V) do not choose, at any rounding of its sampler."""
    row = logits[choice.step][None, :]
    right = int(sample(row, np.asarray([choice.uniform]), sampler, choice.memory)[0][0])
    own = judged(choice._replace(token=right, logits=row), bounded.Bounded(logits, None, dtype), sampler)
    return token is not None and token != right and not own.is_near


def written(side: Side, prompt: list[int], n_tokens: int, sampler: Sampler, seed: int, stop: Sequence[int] = ()) -> list[int]:
    """The tokens that a side writes."""
    with side.in_force():
        return [int(step.tokens[0]) for step in generate(side.model, prompt, n_tokens, sampler, seed, stop)]


def read_again(side: Side, prompt: list[int], text: list[int], room: int) -> dict[Place, np.ndarray]:
    """Every op's results while a side reads a prompt at once and then a text token by token: float64.

    The logits are those of the side as it writes, with nobody looking: kernels of many layers, too, are at work there.
    room: positions of the cache, which decide the blocks in which attention reads it
    """
    model, xp = side.model, side.model.backend.xp
    cache, own = new_cache(model, 1, room), new_cache(model, 1, room)
    parts: dict[Place, list[np.ndarray]] = {}
    with side.in_force():
        for tokens in (prompt, *([token] for token in text)):
            found, cache = _observed(model, tokens, cache, last=1, keep=lambda y: xp.to_numpy(y).astype(np.float64))
            logits, own, *_ = model.architecture.forward(model.params, model.tokens([tokens]), model.config, own, last=1)
            told = {**found, LOGITS: xp.to_numpy(logits[0, ...]).astype(np.float64)}
            for place, rows in told.items():
                parts.setdefault(place, []).append(rows)
    return {place: np.concatenate(rows) for place, rows in parts.items()}


def exact(model: Model, tokens: list[int], dtype: str) -> dict[Place, bounded.Bounded]:
    """Every op's results in float64, each with the bound on its error in the dtype."""
    to_numpy, pretended = model.backend.xp.to_numpy, bounded.FLOATS[dtype]
    params = {name: bounded.from_numpy(to_numpy(x), pretended) for name, x in model.params.items()}
    oracle = replace(model, params=params)

    def compute() -> Mapping[Place, bounded.Bounded]:
        return _observed(oracle, tokens, new_cache(oracle, 1, len(tokens)), last=None, keep=lambda y: y)[0]

    with np.errstate(all="ignore"):  # what overflows in the oracle is judged by the comparison
        return scattered(compute, axis=-1)


def _observed(model: Model, tokens: list[int], cache: Any, last: int | None, keep: Callable[[Any], Any]) -> tuple[Rows, Any]:
    """One call of forward: the floating results of its ops, and the cache after it."""
    found, xp = {}, model.backend.xp

    def tell(place: Place, y: Any) -> None:
        rows = by_position(y) if xp.isdtype(y.dtype, "real floating") else None
        if rows is not None and 1 <= rows.shape[0] <= len(tokens):
            found[place] = keep(rows)

    with traced(model.backend, model.params, tell) as params:
        output = model.architecture.forward(params, model.tokens([tokens]), model.config, cache, last=last)
    found[LOGITS] = keep(output.logits[0, ...])
    return found, output.cache


def shares(rows: np.ndarray, exact: bounded.Bounded) -> np.ndarray:
    """The errors of the last positions, as shares of their bounds, ∞ where a result is no number."""
    oracle = exact[exact.shape[0] - rows.shape[0] :, :]
    with np.errstate(invalid="ignore"):
        found = np.abs(rows - oracle.value) / (oracle.error + oracle.dtype.smallest_normal)
    return np.where(np.isnan(found), np.inf, found)


def layers(read: Sequence[Mapping[Place, np.ndarray]], oracle: Mapping[Place, bounded.Bounded]) -> list[Apart]:
    """The largest differences of every layer, in their order."""
    largest: dict[str, list[float]] = {}
    for place in (p for p in oracle if all(p in rows for rows in read)):
        one, other = (rows[place] for rows in read)
        between = shares(one - other + oracle[place].value[-len(one) :], oracle[place])
        found = [float(np.max(s)) for s in (shares(one, oracle[place]), shares(other, oracle[place]), between)]
        largest[place.layer] = [max(a, b) for a, b in zip(largest.get(place.layer, found), found, strict=True)]
    return [Apart(layer, *found) for layer, found in largest.items()]


def first_fault(
    read: Sequence[Mapping[Place, np.ndarray]], oracle: Mapping[Place, bounded.Bounded], n_prompt: int
) -> Fault | None:
    """The first number beyond its bound, in the order in which a side computes: by call, by op, by position."""
    order = {place: i for i, place in enumerate(oracle)}
    found: list[tuple[tuple[int, int, int, int], Fault]] = []
    for side, rows in enumerate(read):
        for place in (p for p in oracle if p in rows):
            y, begins = rows[place], oracle[place].shape[0] - len(rows[place])
            beyond = shares(y, oracle[place])
            wrong = np.flatnonzero(np.max(beyond, axis=-1) > 1)
            if wrong.size:
                row = int(wrong[0])
                position, j = begins + row, int(np.argmax(beyond[row]))
                bound = float(oracle[place].error[position, j] + oracle[place].dtype.smallest_normal)
                fault = Fault(side, place, position, float(y[row, j]), float(oracle[place].value[position, j]), bound)
                found.append(((max(0, position - n_prompt + 1), order[place], position, side), fault))
    return min(found)[1] if found else None
