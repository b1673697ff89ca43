"""Predictions token by token, their code, and what the same texts cost in one pass."""

import math

import numpy as np
import pytest

from refllm.checkpoints import load, save
from refllm.evaluation.likelihood import token_log_probabilities
from refllm.lab.materials import forecasters, text_models
from refllm.lab.materials.arithmetic_coder import precision
from refllm.lab.materials.forecasters import decoded, encoded
from refllm.lab.materials.text_models import config_of
from refllm.lab.running.learn import learn
from refllm.models import architecture, ngram
from refllm.models.model import Model
from refllm.tokenizer import train_bpe

V = 7
ROWS = [np.random.default_rng(i).integers(0, V, n).tolist() for i, n in enumerate((13, 4, 9, 2))]


def llama(vocab_size=V, length=12, seed=0, tokenizer=None):
    config = architecture("llama").Config(vocab_size, 8, 1, 2, 2, 4, 16, length, tied=True)
    model = Model.initialise("llama", config, seed, "numpy", tokenizer)
    return Model(model.architecture, config, {n: 20 * p for n, p in model.params.items()}, tokenizer)  # far from even


def made(name):
    if name == "transformer":
        return forecasters.forecaster_of(llama(), list)
    return forecasters.counted(lambda step: ROWS[step : step + 2], list, V, steps=3, order=3)


@pytest.mark.parametrize("name", ["transformer", "n-grams"])
def test_predictions_step_by_step_agree_with_what_texts_cost_in_one_pass(name):
    model, nats = made(name), made(name).nats(ROWS)
    for row, costs in zip(ROWS, nats, strict=True):
        forecast = model.begin(1, len(row) - 1)
        found = np.concatenate([forecast(np.array([token])) for token in row[:-1]])
        assert found.sum(axis=-1) == pytest.approx(1, abs=1e-6)
        assert costs.shape == (len(row) - 1,)
        np.testing.assert_allclose(-np.log(found[np.arange(len(costs)), row[1:]]), costs, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["transformer", "n-grams"])
def test_texts_of_any_lengths_side_by_side_come_back_from_a_code_as_long_as_they_are_surprising(name):
    model = made(name)
    code, n_bits, p = encoded(ROWS, model)
    assert decoded(code, [row[0] for row in ROWS], [len(row) for row in ROWS], model) == ROWS
    assert abs(n_bits - 1 + math.fsum(np.log2(p))) <= 1 + precision(p, V)
    assert -math.fsum(np.log(p)) == pytest.approx(math.fsum(np.concatenate(model.nats(ROWS))), rel=1e-5)
    assert len(p) == sum(len(row) - 1 for row in ROWS)
    assert len(code) == -(-n_bits // 8)


def test_n_grams_are_counted_in_the_texts_of_all_steps_in_turn():
    model = forecasters.counted(lambda step: ROWS[2 * step : 2 * step + 2], list, V, steps=2, order=3)
    known = ngram.train(np.concatenate(ROWS), 3, V)
    for given, token in (((1,), 2), ((3,), 0)):
        p = ngram.distribution(known, given)[token]
        assert model.nats([[*given, token]])[0] == pytest.approx([-math.log(p)])
        assert model.begin(1, 1)(np.array(given))[0, token] == pytest.approx(p)


def test_a_batch_is_tokens_and_their_successors_and_nothing_behind_a_text_counts():
    tokens, targets = forecasters.batch([[1, 2, 3, 4], [5, 6]], 4)
    assert tokens.tolist() == [[1, 2, 3, 0], [5, 0, 0, 0]]
    assert targets.tolist() == [[2, 3, 4, -100], [6, -100, -100, -100]]
    assert tokens.dtype == targets.dtype == np.int32


def test_a_transformer_learns_the_texts_it_is_given():
    rows = [[0, 1, 2, 3, 4], [4, 3, 2, 1]]

    def cost(steps):
        model = forecasters.transformer(lambda step: rows, list, V, length=4, steps=steps, width=8, seed=0)
        return math.fsum(map(math.fsum, model.nats(rows)))

    assert cost(1) > 0.9 * 7 * math.log(V)
    assert cost(40) < 0.5 * 7 * math.log(V)


def test_a_transformer_predicts_by_the_running_mean_of_its_weights():
    rows = [[0, 1, 2, 3, 4], [4, 3, 2, 1]]
    training = text_models.training(8, 5, 2, 4, 0)
    config = config_of(8, V, 4)
    (snapshot,) = learn("llama", config, training, lambda step: forecasters.batch(rows, 4), [5])
    mean = forecasters.forecaster_of(Model(architecture("llama"), config, snapshot.averaged), list)
    found = forecasters.transformer(lambda step: rows, list, V, length=4, steps=5, width=8, seed=0)
    for ours, expected in zip(found.nats(rows), mean.nats(rows), strict=True):
        np.testing.assert_array_equal(ours, expected)


@pytest.fixture
def checkpoint(tmp_path):
    """checkpoint(specials, dtype, module) -> a saved model with a tokenizer of these special tokens."""

    def make(specials=("<|begin|>", "<|endoftext|>"), dtype=None, length=12):
        tokenizer = train_bpe("the cat saw the dog, the dog saw the cat. " * 5, 280, list(specials))
        save(tmp_path / "mine", llama(tokenizer.vocab_size, length, tokenizer=tokenizer), dtype)
        return str(tmp_path / "mine"), tokenizer

    return make


def test_a_checkpoint_reads_texts_by_its_own_tokenizer_behind_the_token_of_a_document(checkpoint):
    path, tokenizer = checkpoint()
    model = forecasters.checkpoint(path)
    text = "the dog saw"
    assert model.ids(text) == [tokenizer.eos, *tokenizer.encode(text)]
    assert model.vocab_size == tokenizer.vocab_size
    rows = [model.ids(text), model.ids("the ö")]
    code, *_ = encoded(rows, model)
    again = decoded(code, [row[0] for row in rows], [len(row) for row in rows], model)
    assert [tokenizer.decode(row[1:]) for row in again] == [text, "the ö"]


def test_a_checkpoint_in_half_precision_is_computed_with_in_single(checkpoint):
    path, _ = checkpoint(dtype="float16")
    model = forecasters.checkpoint(path)
    row = model.ids("the cat saw the dog")
    exact = -token_log_probabilities(load(path, dtype="float64"), np.array([row]))[0]
    forecast = model.begin(1, len(row) - 1)
    found = np.concatenate([forecast(np.array([token])) for token in row[:-1]])
    np.testing.assert_allclose(model.nats([row])[0], exact, rtol=1e-5)
    np.testing.assert_allclose(-np.log(found[np.arange(len(row) - 1), row[1:]]), exact, rtol=1e-5)


def test_a_text_longer_than_the_context_is_an_error(checkpoint):
    path, tokenizer = checkpoint(length=4)
    model = forecasters.checkpoint(path)
    assert len(model.ids("the the the the")) == 1 + 4
    with pytest.raises(ValueError, match=r"a text of 5 characters is 5 tokens; the model's context holds 4"):
        model.ids("xyzqv")


def test_a_model_that_cannot_predict_a_texts_first_token_is_an_error(checkpoint, tmp_path):
    path, _ = checkpoint(specials=())
    with pytest.raises(ValueError, match=r"mine has no token that begins or ends a document"):
        forecasters.checkpoint(path)
    save(tmp_path / "bare", llama())
    with pytest.raises(ValueError, match="no tokenizer"):
        forecasters.checkpoint(str(tmp_path / "bare"))
    bert = architecture("bert").Config(V, 8, 1, 2, 12, 16)
    save(tmp_path / "bert", Model.initialise("bert", bert, 0, "numpy"))
    with pytest.raises(ValueError, match="sees what follows"):
        forecasters.checkpoint(str(tmp_path / "bert"))
    with pytest.raises(FileNotFoundError, match="none does not exist"):
        forecasters.checkpoint(str(tmp_path / "none"))
