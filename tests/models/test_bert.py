"""BERT against Hugging Face transformers, its padding and its heads, its published sizes, and its configurations and files."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from refllm import checkpoints
from refllm.checkpoints import tensor_file
from refllm.conformance.specification import definitions, plain
from refllm.decoding import new_cache
from refllm.layers.cross_entropy import cross_entropy, cross_entropy_backward
from refllm.layers.linear import affine_backward
from refllm.models import bert, gpt2
from refllm.models.model import Model
from refllm.models.parameters import count

SMALL = bert.Config(vocab_size=13, d_model=12, n_layers=2, n_heads=3, max_positions=16, d_ff=20)
WHOLE = replace(SMALL, pooler=True, next_sentence=True)
KINDS = {
    "BertForMaskedLM": SMALL,
    "BertForPreTraining": WHOLE,
    "BertModel": replace(SMALL, head=False, pooler=True),
    "BertForNextSentencePrediction": replace(WHOLE, head=False),
}
every_kind = pytest.mark.parametrize("kind", KINDS)


@st.composite
def configs(draw):
    """Small ones of every size that transformers computes."""
    n_heads = draw(st.integers(1, 3))
    vocab_size = draw(st.integers(2, 13))
    return bert.Config(
        vocab_size=vocab_size,
        d_model=n_heads * draw(st.integers(3, 5)),
        n_layers=draw(st.integers(1, 2)),
        n_heads=n_heads,
        max_positions=draw(st.integers(7, 9)),
        d_ff=draw(st.integers(1, 9)),
        n_types=draw(st.integers(1, 3)),
        norm_eps=draw(st.sampled_from([1e-12, 1e-5, 1e-2])),
        activation=draw(st.sampled_from(sorted(bert.ACTIVATION_NAMES))),
        padding=draw(st.none() | st.integers(0, vocab_size - 1)),
    )


def inputs(config, T=7, seed=1, padded=True):
    """Two rows of tokens; which are valid, the first always; their types; and targets, of which some do not count."""
    rng = np.random.default_rng(seed)
    tokens, targets = rng.integers(0, config.vocab_size, (2, 2, T))
    valid = rng.random((2, T)) < 0.7
    valid[:, 0] = True
    targets[rng.random((2, T)) < 0.5] = -100
    targets[0, 0] = 0
    return tokens, valid if padded else None, rng.integers(0, config.n_types, (2, T)), targets


def in_torch(tokens, valid, types):
    import torch

    given = {"input_ids": torch.from_numpy(tokens), "token_type_ids": torch.from_numpy(types)}
    return given if valid is None else given | {"attention_mask": torch.from_numpy(valid.astype(np.int64))}


def compare_gradients(gradients, theirs, config):
    """Hold every gradient to theirs, and to that of the biases' brothers where it is zero but for rounding."""
    named = {name.removeprefix("bert."): p for name, p in theirs.named_parameters()}
    for ours, (name, transposed) in bert.hugging_face_names(config).items():
        found = named.pop(name.removeprefix("bert.")).grad
        expected = np.zeros(gradients[ours].shape) if found is None else found.numpy()  # None: the loss does not come by it
        expected = expected.T if transposed and found is not None else expected
        scale = np.max(np.abs(gradients[ours.replace("attention.k_bias", "attention.k")]))
        assert np.all(np.abs(gradients[ours] - expected) <= 1e-11 * max(scale, np.max(np.abs(expected)))), ours
    assert not named


@pytest.mark.oracle
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])  # the dtype of torch stays switched for all examples
@given(config=configs(), padded=st.booleans())
def test_any_configuration_agrees_with_transformers(config, padded, random_parameters, transformers_in_float64, tmp_path_factory):
    import torch

    folder = tmp_path_factory.mktemp("bert")
    model = Model(bert, config, random_parameters(bert.parameter_shapes(config), 0))
    checkpoints.save(folder, model)
    assert checkpoints.load(folder).config == config
    theirs = transformers_in_float64.AutoModelForMaskedLM.from_pretrained(folder, attn_implementation="eager")
    assert type(theirs).__name__ == "BertForMaskedLM"
    tokens, valid, types, targets = inputs(config, padded=padded)
    result = theirs(**in_torch(tokens, valid, types), labels=torch.from_numpy(targets))
    result.loss.backward()
    expected = result.logits.detach().numpy()
    output = bert.forward(model.params, tokens, config, valid=valid, token_types=types)
    assert output.logits.dtype == expected.dtype == np.float64
    assert np.all(np.abs(output.logits - expected) <= 1e-12 * np.max(np.abs(expected)))
    loss, judged = cross_entropy(output.logits, targets)
    assert abs(loss - result.loss.item()) <= 1e-12 * abs(loss)
    gradients = bert.backward(cross_entropy_backward(np.ones_like(loss), judged), output.saved)
    compare_gradients(gradients, theirs, config)


@pytest.mark.oracle
def test_loss_and_gradients_of_a_loaded_model_are_those_of_transformers(transformers_in_float64, tmp_path):
    import torch

    fields = {"vocab_size": 13, "hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 20}
    theirs = transformers_in_float64.BertForMaskedLM(transformers_in_float64.BertConfig(**fields, max_position_embeddings=16))
    theirs.eval().save_pretrained(tmp_path)
    model = checkpoints.load(tmp_path, dtype="float64")
    tokens, _, types, targets = inputs(model.config)
    assert 0 in tokens, "the token of padding, whose vector transformers does not teach"
    result = theirs(torch.from_numpy(tokens), labels=torch.from_numpy(targets))
    result.loss.backward()
    assert abs(model.loss(tokens, targets) - result.loss.item()) <= 1e-12 * result.loss.item()
    exported = model.export(model.gradients(tokens, targets))
    assert {n: p.shape for n, p in exported.items()} == {n: tuple(p.shape) for n, p in theirs.named_parameters()}
    compare_gradients(model.gradients(tokens, targets), theirs, model.config)


@pytest.mark.oracle
@pytest.mark.parametrize("padded", [False, True])
def test_pooled_features_and_next_sentences_are_those_of_transformers(
    padded, random_parameters, transformers_in_float64, tmp_path
):
    import torch

    params = random_parameters(bert.parameter_shapes(WHOLE), 0)
    checkpoints.save(tmp_path, Model(bert, WHOLE, params))
    theirs = transformers_in_float64.AutoModelForPreTraining.from_pretrained(tmp_path, attn_implementation="eager")
    assert type(theirs).__name__ == "BertForPreTraining"
    tokens, valid, types, _ = inputs(WHOLE, padded=padded)
    given = in_torch(tokens, valid, types)
    features, pooled = theirs.bert(**given)[:2]
    result = theirs(**given)
    x, encoded = bert.encode(params, tokens, WHOLE, valid=valid, token_types=types)
    y, pool = bert.pool(x, params)
    judged, by_pooled = bert.judge_next_sentence(y, params)
    logits = bert.forward(params, tokens, WHOLE, valid=valid, token_types=types).logits
    for ours, expected in (
        (x, features),
        (y, pooled),
        (judged, result.seq_relationship_logits),
        (logits, result.prediction_logits),
    ):
        expected = expected.detach().numpy()
        assert np.all(np.abs(ours - expected) <= 1e-12 * np.max(np.abs(expected)))
    rng = np.random.default_rng(2)
    djudged = rng.standard_normal(judged.shape)
    result.seq_relationship_logits.backward(gradient=torch.from_numpy(djudged))
    dy, *dnext = affine_backward(djudged, by_pooled)
    dx, gradients = bert.pool_backward(dy, pool)
    gradients |= bert.encode_backward(dx, encoded) | dict(
        zip(("next_sentence.dense", "next_sentence.dense_bias"), dnext, strict=True)
    )
    gradients |= {n: np.zeros(s) for n, s in bert.parameter_shapes(WHOLE).items() if n.startswith("head.")}
    compare_gradients(gradients, theirs, WHOLE)


@pytest.mark.oracle
def test_a_real_checkpoint_has_the_features_that_transformers_finds(packaged, transformers_in_float64):
    import torch

    folder = packaged("bert")
    model = checkpoints.load(folder, dtype="float64")
    assert (model.config.n_layers, model.config.pooler, model.config.head, model.n_parameters) == (6, True, False, 22_713_216)
    config = transformers_in_float64.BertConfig.from_pretrained(folder, attn_implementation="eager", dtype=None)
    theirs = transformers_in_float64.BertModel(config).eval()
    theirs.load_state_dict({name: torch.from_numpy(x) for name, x in model.export(model.params).items()})
    texts = ["the quick brown fox jumps over the lazy dog", "a masked model", "sees both sides of every word that it reads!"]
    rows = [model.tokenizer.with_special_tokens(model.tokenizer.encode(text)) for text in texts]
    T = max(map(len, rows))
    tokens = np.asarray([row + [0] * (T - len(row)) for row in rows])
    valid = np.arange(T)[None, :] < np.asarray([[len(row)] for row in rows])
    types = np.zeros_like(tokens)
    with torch.no_grad():
        features, pooled = theirs(**in_torch(tokens, valid, types))[:2]
    x, _ = bert.encode(model.params, tokens, model.config, valid=valid)
    assert np.all(np.abs(x - features.numpy()) <= 1e-12 * np.max(np.abs(features.numpy())))
    y, _ = bert.pool(x, model.params)
    assert np.all(np.abs(y - pooled.numpy()) <= 1e-12)


# What it computes


@given(seed=st.integers(0, 99), padded=st.booleans())
def test_the_definition_with_types_and_padding_agrees(seed, padded, random_parameters):
    config = replace(WHOLE, d_model=6, n_heads=2, n_layers=1, d_ff=3, vocab_size=5)
    params = random_parameters(bert.parameter_shapes(config), seed)
    tokens, valid, types, _ = inputs(config, T=4, seed=seed, padded=padded)
    x, _ = bert.encode(params, tokens, config, valid=valid, token_types=types)
    y, _ = bert.pool(x, params)
    judged, _ = bert.judge_next_sentence(y, params)
    logits = bert.forward(params, tokens, config, valid=valid, token_types=types).logits
    lists, defined = plain(params), definitions()
    for b in range(2):
        how = (types[b].tolist(), valid[b].tolist() if padded else None)
        features = defined["bert_features"](lists, tokens[b].tolist(), config, *how)
        pooled = defined["bert_pooled"](features, lists)
        for found, expected in (
            (x[b], features),
            (logits[b], defined["bert"](lists, tokens[b].tolist(), config, *how)),
            (y[b], pooled),
            (judged[b], defined["bert_next_sentence"](pooled, lists)),
        ):
            assert np.all(np.abs(found - np.asarray(expected)) <= 1e-12 * np.max(np.abs(expected)))


@given(lengths=st.lists(st.integers(1, 7), min_size=1, max_size=3), seed=st.integers(0, 99))
def test_a_row_padded_at_the_right_has_the_logits_it_has_alone(lengths, seed, random_parameters):
    params = random_parameters(bert.parameter_shapes(SMALL), seed)
    T = max(lengths)
    tokens = np.random.default_rng(seed).integers(0, 13, (len(lengths), T))
    valid = np.arange(T)[None, :] < np.asarray(lengths)[:, None]
    together = bert.forward(params, tokens, SMALL, valid=valid).logits
    for b, n in enumerate(lengths):
        alone = bert.forward(params, tokens[b : b + 1, :n], SMALL).logits[0]
        assert np.all(np.abs(together[b, :n] - alone) <= 1e-12 * np.max(np.abs(alone)))


@given(seed=st.integers(0, 99))
def test_what_stands_under_padding_changes_no_other_logit(seed, random_parameters):
    params = random_parameters(bert.parameter_shapes(SMALL), seed)
    tokens, valid, types, _ = inputs(SMALL, seed=seed)
    others = np.where(valid, tokens, (tokens + 1) % 13)
    logits = [bert.forward(params, t, SMALL, valid=valid, token_types=types).logits for t in (tokens, others)]
    np.testing.assert_array_equal(logits[0][valid], logits[1][valid])


def test_the_bias_of_the_keys_changes_nothing(random_parameters):
    params = random_parameters(bert.parameter_shapes(SMALL), 0)
    tokens, valid, _, targets = inputs(SMALL)
    moved = params | {"layers.1.attention.k_bias": params["layers.1.attention.k_bias"] + 3}
    logits = [bert.forward(p, tokens, SMALL, valid=valid).logits for p in (params, moved)]
    assert np.all(np.abs(logits[0] - logits[1]) <= 1e-12 * np.max(np.abs(logits[0])))
    gradients = Model(bert, SMALL, params).gradients(tokens, targets)
    assert np.max(np.abs(gradients["layers.1.attention.k_bias"])) <= 1e-12 * np.max(np.abs(gradients["layers.1.attention.k"]))


def test_positions_count_padding():
    params = {n: np.ones(s) for n, s in bert.parameter_shapes(SMALL).items()}
    params["position_embedding"] = np.random.default_rng(0).standard_normal((16, 12))
    valid = np.asarray([[False, True, True]])
    x, _ = bert.encode(params, np.zeros((1, 3), int), SMALL, valid=valid)
    alone, _ = bert.encode(params, np.zeros((1, 2), int), SMALL)
    assert np.max(np.abs(x[:, 1:] - alone)) > 0.1
    moved = params | {"position_embedding": np.roll(params["position_embedding"], -1, axis=0)}
    shifted, _ = bert.encode(moved, np.zeros((1, 2), int), SMALL)
    assert np.all(np.abs(x[:, 1:] - shifted) <= 1e-12 * np.max(np.abs(x)))


def test_looking_up_padding_teaches_it_nothing_but_the_head_does(random_parameters):
    params = random_parameters(bert.parameter_shapes(SMALL), 0)
    tokens, _, _, targets = inputs(SMALL)
    tokens[0, 0] = 5
    learned, frozen = (Model(bert, replace(SMALL, padding=p), params).gradients(tokens, targets) for p in (None, 5))
    others = np.arange(13) != 5
    np.testing.assert_array_equal(learned["embedding"][others], frozen["embedding"][others])
    assert np.all(learned["embedding"][5] != frozen["embedding"][5])
    by_head = Model(bert, SMALL, params).gradients(np.where(tokens == 5, 6, tokens), targets)
    assert by_head.keys() == frozen.keys()
    assert np.all(frozen["embedding"][5] != 0)


def test_types_that_do_not_fit_the_tokens_are_refused(random_parameters):
    params = random_parameters(bert.parameter_shapes(SMALL), 0)
    with pytest.raises(ValueError, match=r"token_types has shape \(2, 3\); it needs that of tokens, \(2, 4\)"):
        bert.forward(params, np.zeros((2, 4), int), SMALL, token_types=np.zeros((2, 3), int))


# What it cannot do


def test_a_model_without_a_head_has_features_but_no_logits(random_parameters):
    config = KINDS["BertModel"]
    model = Model(bert, config, random_parameters(bert.parameter_shapes(config), 0))
    with pytest.raises(ValueError, match="this BERT has no masked-token head, so it has no logits; encode gives the features"):
        model.logits([[1, 2]])
    assert bert.encode(model.params, np.asarray([[1, 2]]), config)[0].shape == (1, 2, 12)


def test_a_cache_is_refused(random_parameters):
    params = random_parameters(bert.parameter_shapes(SMALL), 0)
    decoder = gpt2.Config(vocab_size=13, d_model=12, n_layers=2, n_heads=3, max_positions=16, d_ff=20)
    cache = new_cache(Model(gpt2, decoder, random_parameters(gpt2.parameter_shapes(decoder), 0)), 1, 4)
    with pytest.raises(ValueError, match="BERT keeps no cache: every token sees those after it, so it reads a text whole"):
        bert.forward(params, np.asarray([[1, 2]]), SMALL, cache)


# Sizes, configurations and files


@pytest.mark.parametrize(
    ("published", "name", "changes"),
    [
        (109_482_240, "bert-base", {}),
        (109_514_298, "bert-base", {"head": True, "pooler": False}),
        (110_106_428, "bert-base", {"head": True, "next_sentence": True}),
        (335_141_888, "bert-large", {}),
    ],
)
def test_a_published_size_has_the_published_number_of_parameters(published, name, changes):
    config = replace(bert.SIZES[name], **changes)
    assert count(bert.parameter_shapes(config)) == published
    assert (config.d_head, config.n_kv_heads) == (64, config.n_heads)


@every_kind
def test_a_configuration_is_read_back_as_it_was_written(kind):
    for config in (KINDS[kind], replace(KINDS[kind], padding=3, activation="gelu_tanh", n_types=1, norm_eps=1e-5)):
        fields = bert.hugging_face_config(config)
        assert fields["architectures"] == [kind]
        assert bert.from_hugging_face(fields) == config


def test_fields_left_out_have_the_defaults_of_transformers():
    fields = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072}
    config = bert.from_hugging_face({"model_type": "bert", "vocab_size": 30_522, **fields})
    assert config == replace(bert.SIZES["bert-base"], padding=0)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("hidden_act", "relu"),
        ("position_embedding_type", "relative_key"),
        ("tie_word_embeddings", False),
        ("is_decoder", True),
        ("add_cross_attention", True),
    ],
)
def test_a_variant_that_is_not_computed_is_refused_by_name(name, value):
    with pytest.raises(ValueError, match=f"config.json has {name}={value!r}; this BERT is an encoder"):
        bert.from_hugging_face(bert.hugging_face_config(SMALL) | {name: value})


def test_sizes_that_do_not_fit_each_other_are_refused():
    with pytest.raises(ValueError, match="d_model=13 cannot be cut into n_heads=3 equal heads"):
        replace(SMALL, d_model=13)
    with pytest.raises(ValueError, match="activation='relu' is not known; choose one of gelu_erf, gelu_tanh"):
        replace(SMALL, activation="relu")
    with pytest.raises(ValueError, match="next_sentence=True needs pooler=True"):
        replace(SMALL, next_sentence=True)
    with pytest.raises(ValueError, match="padding=13 is no token; there are 0 … 12"):
        replace(SMALL, padding=13)
    with pytest.raises(ValueError, match="n_types=0 cannot be; it must be at least 1"):
        replace(SMALL, n_types=0)


def same(model, other):
    return model.config == other.config and all(np.array_equal(p, other.params[n]) for n, p in model.params.items())


@every_kind
def test_a_saved_model_is_read_back_whatever_class_its_configuration_names(kind, random_parameters, tmp_path):
    config = KINDS[kind]
    model = Model(bert, config, random_parameters(bert.parameter_shapes(config), 0))
    checkpoints.save(tmp_path, model)
    assert same(model, checkpoints.load(tmp_path))
    fields = json.loads((tmp_path / "config.json").read_text())
    for named in (["BertForMaskedLM"], ["BertModel"], ["BertForPreTraining"], None):
        (tmp_path / "config.json").write_text(json.dumps(fields | {"architectures": named}))
        assert same(model, checkpoints.load(tmp_path)), named


@every_kind
@pytest.mark.parametrize("prefixed", [True, False])
def test_old_names_buffers_and_either_prefix_are_understood(kind, prefixed, random_parameters, tmp_path):
    config = KINDS[kind]
    model = Model(bert, config, random_parameters(bert.parameter_shapes(config), 0))
    checkpoints.save(tmp_path, model)
    tensors = {}
    for name, tensor in tensor_file.read(tmp_path / "model.safetensors").items():
        old = name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
        bare = old.removeprefix("bert.")
        tensors[f"bert.{bare}" if prefixed and not bare.startswith("cls.") else bare] = tensor
    prefix = "bert." if prefixed else ""
    positions = tensor_file.Tensor("I64", (1, 16), lambda: np.arange(16)[None, :])
    tensors |= {f"{prefix}embeddings.position_ids": positions, f"{prefix}embeddings.token_type_ids": positions}
    if config.head:
        tensors["cls.predictions.decoder.weight"] = tensors[f"{prefix}embeddings.word_embeddings.weight"]
        tensors["cls.predictions.decoder.bias"] = tensors["cls.predictions.bias"]
    tensor_file.write(tmp_path / "old.safetensors", tensors)
    (tmp_path / "old.safetensors").replace(tmp_path / "model.safetensors")
    assert same(model, checkpoints.load(tmp_path))


@pytest.mark.oracle
@every_kind
def test_a_model_saved_by_transformers_saves_back_to_the_same_tensors(kind, tmp_path):
    import transformers

    fields = {"vocab_size": 13, "hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 20}
    theirs = getattr(transformers, kind)(transformers.BertConfig(**fields, max_position_embeddings=16))
    theirs.save_pretrained(tmp_path / "theirs")
    model = checkpoints.load(tmp_path / "theirs")
    assert replace(model.config, padding=None) == KINDS[kind]
    checkpoints.save(tmp_path / "ours", model)
    before, after = (tensor_file.read(tmp_path / side / "model.safetensors") for side in ("theirs", "ours"))
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        np.testing.assert_array_equal(tensor.values(), after[name].values(), err_msg=name)
    again = transformers.AutoModel.from_pretrained(tmp_path / "ours")
    assert type(again).__name__ == "BertModel"


def test_tensors_of_another_head_are_refused_by_name(random_parameters, tmp_path):
    checkpoints.save(tmp_path, Model(bert, SMALL, random_parameters(bert.parameter_shapes(SMALL), 0)))
    tensors = tensor_file.read(tmp_path / "model.safetensors")
    tensors["classifier.weight"] = tensors["cls.predictions.bias"]
    tensor_file.write(tmp_path / "more.safetensors", tensors)
    (tmp_path / "more.safetensors").replace(tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"model.safetensors holds classifier.weight, for which Config\("):
        checkpoints.load(tmp_path)
