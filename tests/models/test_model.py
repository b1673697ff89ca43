"""A model as its users hold it: lists of token ids in, logits, loss and gradients out, checked at the door."""

import numpy as np
import pytest

from refllm.conformance.gradients import complex_step
from refllm.models import llama
from refllm.models.model import Model, check_ids

CONFIG = llama.Config(vocab_size=5, d_model=4, n_layers=1, n_heads=2, n_kv_heads=1, d_head=2, d_ff=3, max_positions=8)


def test_logits_loss_and_gradients_come_from_lists_of_ids(backend):
    model = Model.initialise("llama", CONFIG, 0, backend)
    tokens, targets = [[0, 1, 2], [4, 3, 2]], [[1, 2, -100], [3, 2, 1]]
    assert model.backend is backend
    to_numpy = backend.xp.to_numpy
    logits = to_numpy(model.logits(tokens)).astype(np.float64)
    log_p = logits - np.log(np.sum(np.exp(logits), axis=-1, keepdims=True))
    surprise = [-log_p[b, t, target] for b in range(2) for t, target in enumerate(targets[b]) if target != -100]
    scale = np.max(np.abs(logits)) + np.log(5)
    assert abs(float(model.loss(tokens, targets)) - np.mean(surprise)) <= np.finfo(np.float32).eps * (8 + 5) * scale
    assert model.loss(tokens, targets).shape == ()
    gradients = model.gradients(tokens, targets)
    assert {n: g.shape for n, g in gradients.items()} == model.shapes
    assert model.n_parameters == sum(np.prod(g.shape) for g in gradients.values())


def test_gradients_are_those_of_the_loss():
    model = Model.initialise("llama", CONFIG, 0, "numpy")
    params = {n: p.astype(np.float64) for n, p in model.params.items()}
    tokens, targets = np.asarray([[0, 1, 2]]), np.asarray([[1, -100, 4]])
    gradients = Model(llama, CONFIG, params).gradients(tokens, targets)
    rng = np.random.default_rng(0)
    tangents = [rng.standard_normal(p.shape) for p in params.values()]

    def loss(*values):
        return Model(llama, CONFIG, dict(zip(params, values, strict=True))).loss(tokens, targets)

    _, slope = complex_step(loss, list(params.values()), tangents)
    terms = [np.sum(gradients[n] * t) for n, t in zip(params, tangents, strict=True)]
    assert np.abs(np.sum(terms) - slope) <= 1e-12 * np.sum(np.abs(terms))


def test_gradients_are_exported_under_the_names_and_in_the_shapes_of_a_checkpoint(backend):
    model = Model.initialise("llama", CONFIG, 0, backend)
    gradients = model.gradients([[0, 1, 2]], [[1, 2, 3]])
    exported = model.export(gradients)
    assert set(exported) == {name for name, _ in llama.hugging_face_names(CONFIG).values()}
    to_numpy = backend.xp.to_numpy
    np.testing.assert_array_equal(
        exported["model.layers.0.self_attn.k_proj.weight"], to_numpy(gradients["layers.0.attention.k"]).T
    )
    np.testing.assert_array_equal(exported["model.embed_tokens.weight"], to_numpy(gradients["embedding"]))
    assert model.export({"norm": gradients["norm"]}).keys() == {"model.norm.weight"}
    with pytest.raises(ValueError, match=r"norm has shape \(5, 4\); this model needs \(4,\)."):
        model.export({"norm": gradients["embedding"]})
    with pytest.raises(ValueError, match=r"rhythm has shape \(4,\); this model has no such parameter."):
        model.export({"rhythm": gradients["norm"]})


@pytest.mark.parametrize(
    ("tokens", "sentence"),
    [
        ([0, 1], r"tokens has shape \(2,\); forward needs \(B, T\). For one sequence use tokens\[None, :\]."),
        ([[]], r"tokens has shape \(1, 0\)"),
        ([[0, 5]], r"tokens holds the id 5; the model's vocab_size=5 allows 0 … 4."),
        ([[0, -1]], r"tokens holds the id -1; the model's vocab_size=5 allows 0 … 4."),
        ([[0.5]], r"tokens holds float64; token ids are integers."),
    ],
)
def test_wrong_tokens_are_refused_with_a_sentence(backend, tokens, sentence):
    model = Model.initialise("llama", CONFIG, 0, backend)
    with pytest.raises(ValueError, match=sentence):
        model.logits(tokens)


def test_wrong_targets_are_refused_with_a_sentence(backend):
    model = Model.initialise("llama", CONFIG, 0, backend)
    with pytest.raises(ValueError, match=r"targets holds the id 5"):
        model.loss([[0, 1]], [[5, 1]])
    with pytest.raises(ValueError, match=r"targets has shape \(1, 1\); the loss needs that of tokens, \(1, 2\)."):
        model.loss([[0, 1]], [[1]])


def test_ids_of_every_integer_type_are_accepted_up_to_the_last():
    for dtype in (np.uint8, np.uint16, np.int32, np.int64):
        check_ids(np.asarray([0, 4], dtype=dtype), "tokens", 5)


def test_an_array_of_the_backend_is_taken_as_it_is(backend):
    model = Model.initialise("llama", CONFIG, 0, backend)
    tokens = backend.xp.from_numpy(np.asarray([[0, 1]], dtype=np.int32))
    np.testing.assert_array_equal(backend.xp.to_numpy(model.logits(tokens)), backend.xp.to_numpy(model.logits([[0, 1]])))
