"""Every installed backend keeps every bound, with its kernels and without."""

import os

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings

from refllm.array_api import OPS
from refllm.conformance.kit import all_checks, conform
from refllm.models import gemma

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


def test_where_a_gradient_vanishes_its_rounding_may_be_that_of_a_kernel(backend):
    """One key leaves the queries no gradient, and the norm after attention lets even the products with dy cancel."""
    check = next(check for check in all_checks() if check.name == "gemma: logits, loss, gradients")
    sizes = {"vocab_size": 5, "d_model": 4, "n_layers": 1, "n_heads": 1, "n_kv_heads": 1, "d_head": 4, "d_ff": 5}
    config = gemma.Config(**sizes, query_pre_attn_scalar=4, max_positions=4)
    for seed in range(2):
        rng = np.random.default_rng(seed)
        shapes = gemma.parameter_shapes(config)
        params = {n: (rng.standard_normal(shape) / np.sqrt(shape[0])).astype(np.float32) for n, shape in shapes.items()}
        tokens = rng.integers(0, 5, (2, 1), dtype=np.int32)
        shares = check.shares(backend, (config, params, tokens, (tokens + 1) % 5))
        assert all(share <= 1 for share in shares.values()), shares
