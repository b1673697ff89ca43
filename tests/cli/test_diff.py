"""Two backends write the same text: what is said where they agree, where a tie parts them, and where one is wrong."""

import importlib
import json
import sys

import numpy as np
import pytest

from refllm import checkpoints
from refllm.array_api import OPS, kernels, load
from refllm.array_api.dispatch import register
from refllm.array_api.registry import _LOADED
from refllm.cli.sampling_options import sampler_of
from refllm.conformance.random_model import random_model
from refllm.decoding import Sampler, generate
from refllm.decoding.text import encode_prompt
from refllm.models.model import Model

GREEDY = ("--temperature", 0)
FAULTY = '''
"""A backend like strict, but for the norm before the attention of layer 3, which is off by a thousandth at position 2."""

import dataclasses

from refllm.array_api import OPS, load

strict, calls = load("strict"), 0


def rms_norm(x, gain, eps):
    global calls
    calls += 1
    y, saved = OPS["rms_norm"].reference(x, gain, eps)
    if calls % 9 == 7 and x.shape[1] > 2:  # of two norms a layer and one behind the last
        xp = strict.xp
        wrong = xp.arange(x.shape[1], dtype=xp.int32)[None, :, None] == 2
        y = xp.where(wrong, y * 1.001, y)
    return y, saved


backend = dataclasses.replace(strict, name="faulty", kernels={"rms_norm": rms_norm})
'''


@pytest.fixture
def faulty(tmp_path, monkeypatch):
    """A third party's backend, installed as pip would leave it, for one test."""
    (tmp_path / "refllm_faulty.py").write_text(FAULTY)
    information = tmp_path / "refllm_faulty-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: refllm-faulty\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text("[refllm.backends]\nfaulty = refllm_faulty\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield
    _LOADED.pop("faulty", None)
    sys.modules.pop("refllm_faulty", None)
    register(load("strict"))  # whose arrays they were


def test_equal_texts_are_told_with_the_nearest_decision_and_every_layer(refllm):
    result = refllm("diff", "random:llama", "--against", "strict", "--tokens", 5)
    assert result.status == 0, result
    assert "The texts are equal: 5 tokens." in result.out
    assert "Every number of both is within its error bound." in result.out
    assert "The nearest decision: token " in result.out
    for row in ("embedding", "layers.0", "layers.3", "head", "margin, nats", "bound, nats", "uniform"):
        assert row in result.out


def test_json_tells_the_same_to_programs(refllm):
    result = refllm("diff", "random:gpt2", "3 1 4", "--tokens", 4, "--seed", 7, "--json")
    told = json.loads(result.out)
    assert result.status == 0
    assert told["sides"] == ["numpy", "numpy:off"]
    assert (told["equal"], told["right"], told["parted"], told["fault"]) == (True, True, None, None)
    assert told["prompt"] == [3, 1, 4]
    steps = generate(random_model("gpt2", "numpy"), [3, 1, 4], 4, sampler_of({}), 7)
    assert told["texts"] == [[int(step.tokens[0]) for step in steps]] * 2
    assert [layer["layer"] for layer in told["layers"]][-2:] == ["layers.3", "head"]
    assert all(layer[side] <= 1 for layer in told["layers"] for side in ("first", "second"))
    assert told["decision"]["margin"] > 0


def test_a_planted_fault_is_named_with_its_side_layer_op_and_position(refllm, faulty):
    arguments = ("diff", "random:llama", "5 6 7 8", "--backend", "faulty", "--against", "numpy", "--tokens", 3)
    fault = json.loads(refllm(*arguments, "--json").out)["fault"]
    assert (fault["side"], fault["layer"], fault["op"], fault["position"]) == ("faulty", "layers.3", "rms_norm", 2)
    assert fault["parameter"] == "layers.3.attention_norm"
    assert abs(fault["value"] / fault["float64"] - 1.001) < 1e-5
    result = refllm(*arguments)
    assert result.status == 1
    assert "faulty goes beyond the error bound; this is the first number that does:" in result.out
    for words in ("layers.3", "rms_norm of layers.3.attention_norm", "2, token 7", "times the bound"):
        assert words in result.out


def test_a_fault_of_one_token_alone_is_found_at_the_first_token_written(refllm):
    def swiglu(x, gate, up, down):
        y, saved = OPS["swiglu"].reference(x, gate, up, down)
        return (y if x.shape[1] > 1 else y * np.float32(1.001)), saved

    with kernels(load("numpy"), {"swiglu": swiglu}):
        fault = json.loads(refllm("diff", "random:llama", "1 2 3", "--tokens", 3, "--json").out)["fault"]
    assert (fault["side"], fault["layer"], fault["op"], fault["position"]) == ("numpy", "layers.0", "swiglu", 3)


def test_what_was_computed_first_is_named_first(refllm):
    calls = []

    def swiglu(x, gate, up, down):
        calls.append(x)
        y, saved = OPS["swiglu"].reference(x, gate, up, down)
        wrong = x.shape[1] == 1 or len(calls) % 4 == 3  # in the prompt only in layer 2, behind it everywhere
        return (y * np.float32(1.001) if wrong else y), saved

    with kernels(load("numpy"), {"swiglu": swiglu}):
        fault = json.loads(refllm("diff", "random:llama", "1 2 3", "--tokens", 3, "--json").out)["fault"]
    assert (fault["layer"], fault["op"], fault["position"]) == ("layers.2", "swiglu", 0)


@pytest.fixture
def torn(tmp_path):
    """A model, in a folder, for which tokens 5 and 6 are equally likely, and more likely than all others."""
    model = random_model("llama", "numpy")
    head = np.array(model.params["lm_head"]) * np.float32(0.01)
    head[:, 5] = head[:, 6] = np.float32(0.5) * np.sign(model.params["norm"])
    params = {**model.params, "lm_head": head, "norm": model.params["norm"] * 0 + np.float32(1e-3)}
    params["embedding"] = np.abs(model.params["embedding"]) + np.float32(9)  # so that every feature in the end is positive
    checkpoints.save(tmp_path, Model(model.architecture, model.config, params))
    return tmp_path


def test_texts_that_part_at_a_tie_are_both_right(refllm, torn):
    def linear(x, weight):
        y, saved = OPS["linear"].reference(x, weight)
        return (np.where(np.arange(y.shape[-1]) == 6, np.nextafter(y, np.inf), y) if y.shape[-1] == 512 else y), saved

    with kernels(load("numpy"), {"linear": linear}):
        result = refllm("diff", torn, "1 2 3", "--tokens", 3, *GREEDY)
    assert result.status == 0, result
    assert "The texts part at token 1, position 3: numpy writes 6, numpy:off writes 5." in result.out
    assert "Both are right" in result.out


def test_a_sampler_that_draws_what_the_logits_do_not_say_is_wrong(refllm, monkeypatch):
    generating = importlib.import_module("refllm.decoding.generate")
    honest = generating.sample

    def sample(logits, *arguments):
        tokens, memory = honest(logits, *arguments)
        return (tokens if isinstance(logits, np.ndarray) else (tokens + 1) % 512), memory

    monkeypatch.setattr(generating, "sample", sample)
    result = refllm("diff", "random:llama", "--against", "strict", "--tokens", 2, *GREEDY)
    assert result.status == 1
    assert "strict chose a token that its logits do not choose" in result.out


def test_texts_of_a_checkpoint_are_told_in_words(refllm, finished_run):
    result = refllm("diff", finished_run, "the", "--tokens", 3, *GREEDY)
    assert result.status == 0, result
    model = checkpoints.load(finished_run, "numpy")
    (token,) = next(iter(generate(model, encode_prompt(model, "the"), 1, Sampler(0.0), 0))).tokens
    assert f"({token})" in result.out or f"of {token}" in result.out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["random:x"], "'x' is not an architecture"),
        (["random:bert"], "masked model"),
        (["random:llama", "--against", "numpy"], "are the same side"),
        (["random:llama", "--backend", "numpy:of"], "'numpy:of' is not a side"),
        (["random:llama", "--against", "tpu"], "is not a backend"),
        (["random:llama", "--dtype", "float64"], "no error bounds for float64"),
        (["random:llama", "--dtype", "int32"], "dtype='int32' is none that numpy computes in"),
        (["random:llama", "some words"], "no tokenizer to read 'some words'"),
        (["random:llama", ""], "the prompt is empty"),
        (["random:llama", "600"], "holds the id 600"),
        (["random:llama", "--tokens", "2000"], "no room in the model's context"),
        (["nowhere"], "nowhere does not exist"),
    ],
)
def test_what_cannot_be_compared_is_refused_in_a_sentence(refllm, arguments, says):
    refllm("diff", *arguments).refused(says)


def test_a_fault_of_a_kernel_of_many_layers_is_found_in_the_logits(refllm):
    def llama_blocks(x, *rest):
        y, cache = OPS["llama_blocks"].reference(x, *rest)
        return (y + np.float32(0.01) if x.shape[1] == 1 else y), cache  # a factor would be undone by the norm that follows

    with kernels(load("numpy"), {"llama_blocks": llama_blocks}):
        fault = json.loads(refllm("diff", "random:llama", "1 2 3", "--tokens", 3, "--json").out)["fault"]
    assert (fault["side"], fault["layer"], fault["position"]) == ("numpy", "head", 3)
