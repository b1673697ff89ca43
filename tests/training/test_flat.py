"""Parameters go into one vector and come out of it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.array_api import load
from refllm.training.flat import arrange, pack, unpack

shapes = st.dictionaries(st.text("abc.", min_size=1, max_size=5), st.lists(st.integers(1, 4), min_size=1, max_size=3).map(tuple))


def numbered(table):
    """A tensor for each shape, its numbers unlike any other's."""
    return {name: (1000 * i + np.arange(np.prod(s), dtype=np.float32)).reshape(s) for i, (name, s) in enumerate(table.items())}


@given(table=shapes.filter(bool))
def test_what_is_packed_comes_out_again(table):
    layout, tensors = arrange(table), numbered(table)
    for name in ("numpy", "strict"):
        xp = load(name).xp
        vector = pack({n: xp.from_numpy(a) for n, a in tensors.items()}, layout)
        out = {n: xp.to_numpy(x) for n, x in unpack(vector, layout).items()}
        assert vector.shape == (layout.size,)
        assert out.keys() == tensors.keys()
        for n in tensors:
            np.testing.assert_array_equal(out[n], tensors[n])


@given(table=shapes.filter(bool))
def test_matrices_come_first_each_part_in_reading_order(table):
    layout = arrange(table)
    matrices = [name for name, shape in table.items() if len(shape) > 1]
    assert list(layout.names) == matrices + [name for name in table if name not in matrices]
    assert layout.n_decayed == sum(np.prod(table[name]) for name in matrices)


def test_every_backend_packs_alike(backend):
    table = {"norm": (3,), "q": (3, 4), "head": (2, 3)}
    layout, tensors = arrange(table), numbered(table)
    vector = pack({n: backend.xp.from_numpy(a) for n, a in tensors.items()}, layout)
    expected = np.concatenate([tensors[n].reshape(-1) for n in ("q", "head", "norm")])
    np.testing.assert_array_equal(backend.xp.to_numpy(vector), expected)
    for name, x in unpack(vector, layout).items():
        np.testing.assert_array_equal(backend.xp.to_numpy(x), tensors[name])


def test_numpy_unpacks_to_views():
    layout = arrange({"a": (2, 3), "b": (3,)})
    vector = np.zeros(9, dtype=np.float32)
    assert all(np.shares_memory(x, vector) for x in unpack(vector, layout).values())


def test_tensors_of_another_layout_are_refused():
    layout = arrange({"a": (2, 3), "b": (3,)})
    with pytest.raises(ValueError, match="b, c stand on one side only"):
        pack({"a": np.zeros((2, 3)), "c": np.zeros(3)}, layout)
    with pytest.raises(ValueError, match=r"the vector has shape \(8,\); this model's parameters need \(9,\)"):
        unpack(np.zeros(8), layout)
