"""The tracer tells each op's result once, by the name of what it reads, and leaves no trace."""

import numpy as np
import pytest

from refllm.array_api import kernels, kernels_of, load
from refllm.conformance.random_model import random_model
from refllm.conformance.trace import Place, by_position, traced


@pytest.fixture
def told():
    """A function from a table of kernels, and an architecture, to what a tracer told of one call, in order, and the output."""
    numpy = load("numpy")

    def call(table, architecture="llama"):
        model, found = random_model(architecture, "numpy"), []
        with kernels(numpy, table), traced(numpy, model.params, lambda place, y: found.append((place, np.array(y)))) as params:
            output = model.architecture.forward(params, np.asarray([[1, 2, 3]], dtype=np.int32), model.config)
        return found, output

    return call


def test_every_op_is_told_by_the_parameter_that_it_reads_and_its_layer(told):
    found, output = told({})
    places = [place for place, _ in found]
    assert len(set(places)) == len(places)
    assert places[0] == Place("embedding", "embedding", 0)
    third = [(place.name.removeprefix("layers.2."), place.op, place.occurrence) for place in places if place.layer == "layers.2"]
    ops = [("attention_norm", "rms_norm"), ("attention.q", "linear"), ("attention.k", "linear"), ("attention.v", "linear")]
    assert third[:4] == [(name, op, 0) for name, op in ops]
    assert ("layers.2", "rope", 1) in third
    assert ("layers.2", "attention", 0) in third
    assert ("ffn.gate", "swiglu", 0) in third
    assert [place.layer for place in places[-2:]] == ["head", "head"]
    np.testing.assert_array_equal(found[-1][1], output.logits)


def test_ops_inside_ops_are_not_told_so_kernels_tell_the_same(told):
    plain, fast = told({})[0], told(load("numpy").kernels)[0]
    assert [place for place, _ in plain] == [place for place, _ in fast]
    assert not [place for place, _ in plain if place.op == "softmax"]


def test_a_layer_is_known_also_where_its_parameters_are_changed_before_they_are_used(told):
    norms = [place for place, _ in told({}, "gemma")[0] if place.op == "rms_norm"]
    assert [norm.layer for norm in norms[:8]] == ["layers.0"] * 4 + ["layers.1"] * 4
    assert norms[-1].layer == "head"


def test_a_tied_head_is_not_taken_for_the_embedding(told):
    places = [place for place, _ in told({}, "gpt2")[0]]
    assert [place.layer for place in places[-2:]] == ["head", "head"]
    assert {place.layer for place in places[2:-2]} == {f"layers.{i}" for i in range(4)}


def test_what_was_in_force_before_is_so_again_afterwards():
    numpy = load("numpy")
    before = kernels_of(numpy)
    with pytest.raises(KeyError), traced(numpy, {"embedding": np.zeros(1)}, lambda place, y: None):
        raise KeyError
    assert kernels_of(numpy) is before


def test_results_are_rows_by_position():
    x = np.arange(24.0)
    np.testing.assert_array_equal(by_position(x.reshape(1, 2, 3, 4))[1], [4, 5, 6, 7, 16, 17, 18, 19])
    np.testing.assert_array_equal(by_position(x.reshape(1, 6, 4)), x.reshape(6, 4))
    np.testing.assert_array_equal(by_position(x.reshape(6, 4)), x.reshape(6, 4))
    assert by_position(x) is None
    assert by_position(x.reshape(2, 3, 4)) is None
