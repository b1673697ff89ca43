"""Looking tokens up, and giving each row of the table the gradients of all its occurrences."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.conformance.gradients import gradient_error
from refllm.conformance.strategies import integers, normals
from refllm.layers.embedding import embedding, embedding_backward


@given(st.data())
def test_gradients_equal_the_complex_step(data):
    V, D = data.draw(st.integers(1, 7)), data.draw(st.integers(1, 4))
    shape = data.draw(st.sampled_from([(1,), (5,), (2, 3), (1, 2, 3)]))
    assert gradient_error(embedding, embedding_backward, (data.draw(integers(shape, 0, V)), data.draw(normals((V, D))))) <= 1e-12


@pytest.mark.oracle
def test_it_agrees_with_torch(assert_agrees_with_torch):
    import torch

    tokens, table = np.array([[0, 3, 3], [6, 3, 0]]), np.random.default_rng(0).standard_normal((7, 4))
    assert_agrees_with_torch(embedding, embedding_backward, (tokens, table), torch.nn.functional.embedding)


def test_every_token_reads_its_own_row(backend):
    table = np.arange(12, dtype=np.float32).reshape(4, 3)
    tokens = np.array([[3, 0], [3, 1]], dtype=np.int32)
    y, _ = embedding(backend.xp.from_numpy(tokens), backend.xp.from_numpy(table))
    np.testing.assert_array_equal(backend.xp.to_numpy(y), table[tokens])


def test_a_token_that_occurs_often_adds_up_even_in_half_precision(backend):
    xp, n = backend.xp, 4096
    for name in sorted({"float16", "bfloat16"} & xp.dtypes()):
        dtype = getattr(xp, name)
        _, saved = embedding(xp.zeros((n,), dtype=xp.int32), xp.zeros((2, 1), dtype=dtype))
        dtable = embedding_backward(xp.ones((n, 1), dtype=dtype), saved)
        np.testing.assert_array_equal(xp.to_numpy(dtable), [[n], [0]])
