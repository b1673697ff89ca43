"""The kit: run every check on a backend, kernels on and off, in every dtype it has, and say how near each bound it came."""

from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from typing import NamedTuple

from hypothesis import HealthCheck, Phase, given, settings

from refllm.array_api import Backend, kernels

from .check import Check

GROUPS = ("array_api", "layers", "tokenizer", "models", "training", "decoding")  # the floors, from the ground up


class Row(NamedTuple):
    """One line of the report."""

    name: str
    group: str
    dtype: str
    kernels: str  # "on" or "off"
    cases: int  # how many inputs were tried
    worst: float  # the largest error as a share of its bound; above 1 is a failure
    failure: str  # what went wrong, on the smallest input found; empty if nothing did


def all_checks() -> list[Check]:
    """Every check there is, in the order of the house's floors."""
    from . import (
        array_checks,
        batch_checks,
        cache_checks,
        layer_checks,
        model_checks,
        sampling_checks,
        text_checks,
        tokenizer_checks,
        training_checks,
    )

    floors = (array_checks, layer_checks, tokenizer_checks, model_checks, training_checks)
    modules = (*floors, cache_checks, batch_checks, sampling_checks, text_checks)
    checks = [check for module in modules for check in module.CHECKS]
    return sorted(checks, key=lambda check: GROUPS.index(check.group))


def run(
    check: Check, backend: Backend, dtype: str = "float32", plain: bool = False, examples: int = 25, shrink: bool = True
) -> Row:
    """Try one check on drawn inputs, the same ones every time.

    plain: with the readable bodies in place of the backend's kernels    examples: how many inputs to draw
    shrink: whether to look for the smallest input that fails, when one does
    """
    said = "int32" if check.group == "tokenizer" else dtype  # ids have no rounding
    phases = (Phase.generate, Phase.shrink) if shrink else (Phase.generate,)
    worst, cases = 0.0, 0

    @settings(
        max_examples=examples,
        derandomize=True,
        database=None,
        deadline=None,
        phases=phases,
        suppress_health_check=list(HealthCheck),
    )
    @given(check.draw)
    def attempt(drawn):
        nonlocal worst, cases
        cases += 1
        shares = check.shares(backend, drawn, dtype)
        worst = max(worst, *shares.values())
        wrong = {name: share for name, share in shares.items() if not share <= 1}
        if wrong:
            results = ", ".join(f"{name} is {share:.3g} times its bound away" for name, share in wrong.items())
            raise AssertionError(f"{check.name} on {backend.name} in {dtype}: {results}, for {_short(drawn)}")

    try:
        with kernels(backend, {}) if plain else nullcontext():
            attempt()
    except Exception as problem:  # whatever a foreign backend raises is its failure, to be reported as such
        reason = str(problem) if isinstance(problem, AssertionError) else f"{type(problem).__name__}: {problem}"
        return Row(check.name, check.group, said, _on_off(plain), cases, max(worst, float("inf")), reason)
    return Row(check.name, check.group, said, _on_off(plain), cases, worst, "")


def conform(backend: Backend, checks: Iterable[Check] | None = None, examples: int = 25, halves: bool = True) -> Iterator[Row]:
    """Rows of every check on a backend: float32 with kernels on and off, then the halves it computes in."""
    has = backend.xp.dtypes()
    for check in all_checks() if checks is None else checks:
        has_kernels = backend.kernels and check.group != "array_api"  # whose names are below all kernels
        for plain in (False, True) if has_kernels else (True,):
            yield run(check, backend, "float32", plain, examples)
            for dtype in ("float16", "bfloat16"):
                if halves and check.halves and dtype in has:
                    yield run(check, backend, dtype, plain, max(examples // 3, 5))


def _on_off(plain: bool) -> str:
    return "off" if plain else "on"


def _short(drawn, limit: int = 400) -> str:
    text = " ".join(repr(drawn).split())
    return text if len(text) <= limit else text[:limit] + " …"
