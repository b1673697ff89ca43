"""Masked tokens and pseudo-log-likelihoods against transformers, the definition, and the laws of hiding."""

import importlib
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm import checkpoints
from refllm.conformance.specification import definitions
from refllm.evaluation.fill import fill, masked_log_probabilities, pseudo_log_likelihood
from refllm.models import bert
from refllm.models.model import Model
from refllm.tokenizer import Tokenizer

EXACT = 1e-12
WORDS = ["the", "cat", "sat", "on", "mats", "dog", "sitting", ".", "a"]
TEXTS = st.lists(st.sampled_from(WORDS), min_size=1, max_size=5).map(" ".join)
ROWS = st.lists(st.integers(5, 15), min_size=1, max_size=12)
MASK = 4
module = importlib.import_module("refllm.evaluation.fill")  # the package has a function of that name


def log_softmax(logits):
    return logits - np.log(np.sum(np.exp(logits), axis=-1, keepdims=True))


@pytest.mark.oracle
def test_a_pseudo_log_likelihood_is_that_of_transformers(make_masked_model, transformers_in_float64, tmp_path):
    import torch

    model = make_masked_model("numpy", "float64")
    checkpoints.save(tmp_path, Model(model.architecture, model.config, model.params))
    theirs = transformers_in_float64.BertForMaskedLM.from_pretrained(tmp_path, attn_implementation="eager")
    found = pseudo_log_likelihood(model, "the cats sat sitting on a mat.")
    tokens = [2, *found.tokens, 3]
    expected = []
    for place in range(1, len(tokens) - 1):
        hidden = torch.tensor([[MASK if i == place else t for i, t in enumerate(tokens)]])
        with torch.no_grad():
            expected.append(float(torch.log_softmax(theirs(hidden).logits[0, place], -1)[tokens[place]]))
    assert len(found.tokens) == 10
    assert np.all(np.abs(found.log_probabilities - expected) <= EXACT * np.max(np.abs(expected)))


@given(TEXTS)
def test_a_pseudo_log_likelihood_equals_its_definition(make_masked_model, text):
    model = make_masked_model("numpy", "float64")
    found = pseudo_log_likelihood(model, text)
    ids = model.tokenizer.encode(text)
    assert found.tokens == tuple(ids)
    tokens, places = [2, *ids, 3], list(range(1, len(ids) + 1))
    expected = definitions()["masked_log_probabilities"](lambda row: model.logits([row])[0].tolist(), tokens, MASK, places)
    assert np.all(np.abs(found.log_probabilities - expected) <= EXACT * np.max(np.abs(expected)))
    assert abs(found.total - sum(expected)) <= EXACT * abs(found.total)
    assert abs(found.pseudo_perplexity / np.exp(-np.mean(expected)) - 1) <= EXACT


@given(ROWS, st.integers(0, 11), st.integers(5, 15))
def test_a_hidden_token_does_not_tell_itself(make_masked_model, row, place, other):
    model, place = make_masked_model("numpy", "float64"), place % len(row)
    nats = [masked_log_probabilities(model, [*row[:place], t, *row[place + 1 :]], [place])[0] for t in range(16)]
    assert abs(np.sum(np.exp(nats)) - 1) <= EXACT


@given(ROWS)
def test_rows_at_once_change_no_pseudo_log_likelihood(backend, make_masked_model, row):
    expected = masked_log_probabilities(make_masked_model("numpy", "float64"), row, range(len(row)))
    model = make_masked_model(backend.name)
    n = 2 * (8 + 8 + 12 + 4 + 8 + 12 + 8 + 8) + 8 + 8 + 16  # terms of all sums on the way
    bound = 2 * np.finfo("float32").eps * (24 + n) * (8 + np.max(np.abs(expected)))
    for logits in (1, 16 * len(row) * 2, 1 << 20):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "LOGITS", logits)
            found = masked_log_probabilities(model, row, range(len(row)))
        assert np.all(np.abs(found - expected) <= bound)


def test_hiding_each_token_never_makes_the_logits_of_all_rows_at_once(make_masked_model, monkeypatch):
    V, T = 5000, 40
    config = bert.Config(V, d_model=2, n_layers=1, n_heads=1, max_positions=T, d_ff=2)
    tokenizer = make_masked_model().tokenizer
    model = Model.initialise("bert", config, seed=0, backend="numpy", tokenizer=tokenizer)
    monkeypatch.setattr(module, "LOGITS", 2 * T * V)
    tracemalloc.start()
    masked_log_probabilities(model, [7] * T, range(T))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < V * T * T * 4 / 2


def test_each_mask_gets_its_likeliest_tokens_while_the_others_stay(make_masked_model):
    model = make_masked_model("numpy", "float64")
    (found,) = fill(model, "the [MASK] sat", 16)
    (tokens,) = ([2, 5, MASK, 7, 3],)
    expected = log_softmax(model.logits([tokens])[0, 2])
    assert found.position == 2
    assert found.tokens == tuple(np.argsort(-expected, kind="stable").tolist())
    assert np.allclose(found.log_probabilities, np.sort(expected)[::-1], rtol=EXACT)
    both = fill(model, "[MASK] cat [MASK].", 3)
    expected = log_softmax(model.logits([[2, MASK, 6, MASK, 14, 3]])[0])
    assert [filling.position for filling in both] == [1, 3]
    for filling in both:
        assert filling.tokens == tuple(np.argsort(-expected[filling.position], kind="stable")[:3].tolist())


def test_what_cannot_be_filled_is_refused(make_masked_model, make_model, masked_tokenizer):
    model = make_masked_model()
    for text, k, says in [
        ("the cat", 5, r"the text holds no \[MASK\]; write it where a token is to be guessed"),
        ("[MASK]", 17, "k=17 must be 1 … 16"),
        ("[MASK]" + " the" * 12, 5, "the text has 15 tokens; the model reads at most 12 at once"),
    ]:
        with pytest.raises(ValueError, match=says):
            fill(model, text, k)
    with pytest.raises(ValueError, match="the text is empty"):
        pseudo_log_likelihood(model, " ")
    with pytest.raises(ValueError, match="predicts the next token and fills no masks"):
        pseudo_log_likelihood(make_model(tokenizer=masked_tokenizer), "the cat")
    with pytest.raises(ValueError, match="the model has no tokenizer"):
        fill(make_masked_model(tokenizer=None), "[MASK]")
    bare = Tokenizer(masked_tokenizer.model, [t for t in masked_tokenizer.added if t.content != "[MASK]"])
    with pytest.raises(ValueError, match=r"the vocabulary has no mask: none of its special tokens is \[MASK\] or <mask>"):
        fill(make_masked_model(tokenizer=bare), "the cat")
    broken = Model(
        model.architecture, model.config, model.params | {"head.bias": model.params["head.bias"] * np.nan}, model.tokenizer
    )
    with pytest.raises(ValueError, match="the logits are not finite numbers"):
        fill(broken, "[MASK]")
