"""Every installed backend keeps every bound, with its kernels and without."""

import os

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings

from refllm.array_api import OPS
from refllm.conformance.kit import all_checks, conform

EXAMPLES = 200 if os.environ.get("HYPOTHESIS_PROFILE") == "thorough" else 8
LONG = {"training": 3, "models": 6, "decoding": 8}  # examples of the groups that take longer


@pytest.mark.parametrize("check", all_checks(), ids=lambda check: check.name.replace(" ", "_"))
def test_a_backend_keeps_the_bounds_of_the_float64_oracle(check, backend):
    examples = min(EXAMPLES, LONG.get(check.group, EXAMPLES)) if EXAMPLES < 200 else EXAMPLES
    rows = list(conform(backend, [check], examples))
    assert all(row.cases >= 1 for row in rows)
    assert not [row.failure for row in rows if row.failure]


def test_every_layer_that_may_have_a_kernel_is_checked():
    names = {check.name for check in all_checks()}
    layers = {n for n, op in OPS.items() if op.__module__.startswith("refllm.layers") and not n.endswith("_backward")}
    assert layers <= names


@pytest.mark.parametrize("check", all_checks(), ids=lambda check: check.name.replace(" ", "_"))
def test_the_bounds_are_narrow(check):
    """On the usual input the usual bound is below a thousandth of the result: a fault of that size cannot pass."""
    widths = []

    @settings(
        max_examples=8,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(check.draw)
    def measure(drawn):
        with np.errstate(all="ignore"):
            for y in check.oracle(drawn).values():
                finite = np.isfinite(y.value)
                if finite.any():
                    widths.append(np.median(y.error[finite]) / max(1.0, np.abs(y.value[finite]).max()))

    measure()
    assert np.median(widths) < 1e-3
