"""The strict backend refuses what only some libraries allow."""

import numpy as np
import pytest

pytest.importorskip("array_api_strict", reason="array-api-strict is not installed: pip install array-api-strict")

from refllm.array_api import load


@pytest.mark.parametrize(
    "unportable",
    [
        lambda x, xp: x + np.ones(2, dtype=np.float32),
        lambda x, xp: x * np.float32(2),
        lambda x, xp: x + xp.asarray([1, 2], dtype=xp.int32),
        lambda x, xp: x[x > 0],
        lambda x, xp: x.sum(),
        lambda x, xp: xp.sum(x, 0),
        lambda x, xp: xp.where(x > 0, 1.0, 2.0),
        lambda x, xp: x.__setitem__(xp.asarray([0], dtype=xp.int32), xp.asarray([0.0], dtype=xp.float32)),
    ],
)
def test_what_is_not_in_the_standard_is_refused(unportable):
    xp = load("strict").xp
    with pytest.raises((TypeError, IndexError, AttributeError, RuntimeError)):
        unportable(xp.asarray([1.0, 2.0], dtype=xp.float32), xp)


def test_a_write_past_the_end_is_refused():
    xp = load("strict").xp
    with pytest.raises((IndexError, ValueError)):
        xp.write(xp.zeros((3,), dtype=xp.float32), 2, xp.ones((2,), dtype=xp.float32), 0)


def test_it_has_no_halves():
    assert not {"float16", "bfloat16"} & load("strict").xp.dtypes()
