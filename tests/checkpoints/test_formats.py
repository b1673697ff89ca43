"""What bits and rows of checkpoints mean, held to the definitions of spec/checkpoints/formats.md."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as nps

from refllm.checkpoints import tensor_file
from refllm.checkpoints.gguf_file import QUANTISED, dequantise
from refllm.checkpoints.llama2c import halves_from_pairs
from refllm.conformance.specification import definitions

SCALES = {"Q4_0": (0,), "Q8_0": (0,), "Q4_K": (0, 2), "Q6_K": (208,)}  # where float16 numbers stand in a block


@given(bits=nps.arrays(np.uint16, 30))
def test_what_is_read_from_16_bits_equals_its_definition(bits):
    expected = [definitions()["bfloat16"](int(n)) for n in bits]
    np.testing.assert_array_equal(tensor_file.from_bfloat16(bits), np.asarray(expected, np.float32))
    expected = [definitions()["float16"](int(n) % 256, int(n) // 256) for n in bits]
    np.testing.assert_array_equal(bits.view(np.float16), np.asarray(expected, np.float16))


@given(n_heads=st.integers(1, 3), half=st.integers(1, 5))
def test_halves_from_pairs_equals_its_definition(n_heads, half):
    rows = np.arange(n_heads * 2 * half)
    expected = definitions()["halves_from_pairs"](rows.tolist(), 2 * half)
    assert halves_from_pairs(rows[:, None], n_heads)[:, 0].tolist() == expected


@st.composite
def blocks(draw, name):
    """Rows of one block each: any bytes, but finite scales."""
    size, n = next(size for kind, _, size in QUANTISED.values() if kind == name), draw(st.integers(1, 3))
    data = draw(nps.arrays(np.uint8, (n, size)))
    for place in SCALES[name]:
        data[:, place : place + 2] = draw(nps.arrays("<f2", (n, 1), elements=st.floats(-100, 100, width=16))).view(np.uint8)
    return data


@pytest.mark.parametrize("name", SCALES)
@given(data=st.data())
def test_a_block_equals_its_definition(name, data):
    pytest.importorskip("gguf", reason="the package gguf is not installed; pip install '.[gguf]'")
    rows = data.draw(blocks(name))
    expected = np.asarray([definitions()[name.lower()](row.tolist()) for row in rows])
    error = np.abs(dequantise(rows, name, expected.shape) - expected)
    assert np.all(error <= np.finfo(np.float32).eps * np.abs(expected))  # products of few bits are exact: one rounding
