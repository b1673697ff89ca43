"""Perplexity against transformers' documented loop, a model whose probabilities are known, and the laws of windows."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm import checkpoints
from refllm.conformance.specification import definitions
from refllm.decoding import Sampler, generate
from refllm.evaluation.likelihood import token_log_probabilities
from refllm.evaluation.perplexity import Perplexity, perplexity, score_text, windows
from refllm.models import gpt2
from refllm.models.model import Model
from refllm.tokenizer import AddedToken, Tokenizer

EXACT = 1e-12
TEXT = "the cat sat on the mat. the dog ran to the tree, and the süß cat slept under it."
sizes = st.integers(2, 12).flatmap(lambda context: st.tuples(st.just(context), st.integers(1, context - 1)))


def scores_of(model, tokens, **options):
    """All log-probabilities of a text."""
    return np.concatenate([scores.log_probabilities for scores in score_text(model, tokens, **options)])


# Windows


@given(st.integers(2, 60), sizes)
def test_windows_score_each_token_once_with_all_the_context_that_the_stride_leaves(n_tokens, size):
    context, stride = size
    found = windows(n_tokens, context, stride)
    assert [t for w in found for t in range(w.scored, w.end)] == list(range(1, n_tokens))
    assert all(w.end - w.begin <= context and w.begin < w.scored for w in found)
    assert all(w.begin == 0 or w.scored - w.begin >= context - stride for w in found)
    assert [list(w) for w in found] == definitions()["windows"](n_tokens, context, stride)


@pytest.mark.parametrize(("context", "stride"), [(1, 1), (4, 0), (4, 4), (4, 9)])
def test_windows_that_would_leave_a_token_out_are_refused(context, stride):
    with pytest.raises(ValueError, match="leaves no token to predict from|must be 1 … 3"):
        windows(20, context, stride)


# Against what is known


@pytest.mark.oracle
@pytest.mark.parametrize(("n_tokens", "stride"), [(70, 8), (70, 5), (64, 15), (16, 8), (9, 4)])
def test_strided_perplexity_is_that_of_the_loop_that_transformers_documents(n_tokens, stride, transformers_in_float64, tmp_path):
    import torch

    config = gpt2.Config(vocab_size=29, d_model=12, n_layers=2, n_heads=3, max_positions=16, d_ff=20)
    rng = np.random.default_rng(0)
    params = {n: rng.normal(len(s) == 1, 0.5, s) for n, s in gpt2.parameter_shapes(config).items()}
    model = Model(gpt2, config, params)
    checkpoints.save(tmp_path, model)
    theirs = transformers_in_float64.AutoModelForCausalLM.from_pretrained(tmp_path, attn_implementation="eager")
    tokens = rng.integers(0, 29, n_tokens)
    ours = scores_of(model, tokens, stride=stride, batch=3)
    nats, counted, apart, previous = 0.0, 0, 0.0, 0
    for begin in range(0, n_tokens, stride):
        end = min(begin + 16, n_tokens)
        ids = torch.from_numpy(tokens[None, begin:end])
        targets = ids.clone()
        targets[:, : -(end - previous)] = -100
        with torch.no_grad():
            loss = float(theirs(ids, labels=targets).loss)  # the mean over the targets but the first, which nothing predicts
        scored = int((targets[:, 1:] != -100).sum())
        nats, counted = nats + loss * scored, counted + scored
        here = -ours[max(previous, 1) - 1 : end - 1]
        apart += abs(loss - float(np.mean(here)))
        previous = end
        if end == n_tokens:
            break
    assert counted == len(ours) == n_tokens - 1
    assert abs(-math.fsum(ours) - nats) <= EXACT * nats
    assert apart <= EXACT * nats


def test_a_uniform_models_perplexity_is_its_vocabulary_and_its_bits_are_known(tokenizer, bigram):
    V = tokenizer.vocab_size
    found = perplexity(bigram(np.full((V, V), 1 / V), tokenizer), TEXT, context=10)
    n_tokens = len(tokenizer.encode(TEXT))
    first = len(tokenizer.bytes_of(tokenizer.encode(TEXT)[0]))
    assert (found.n_tokens, found.n_bytes, found.n_words) == (n_tokens - 1, len(TEXT.encode()) - first, len(TEXT.split()))
    assert abs(found.perplexity - V) <= EXACT * V
    assert abs(found.bits_per_token - math.log2(V)) <= EXACT
    assert abs(found.bits_per_byte - math.log2(V) * found.n_tokens / found.n_bytes) <= EXACT
    assert abs(found.bits_per_word - math.log2(V) * found.n_tokens / found.n_words) <= 1e-10
    assert abs(found.nats_per_token - math.log(V)) <= EXACT


@pytest.mark.parametrize("batch", [1, 8])
def test_the_trained_model_predicts_its_own_greedy_text_well_and_shuffled_text_badly(data, batch):
    model = checkpoints.load(data / "stories260K.bin")
    tokenizer = Tokenizer.load(data / "tok512.bin")
    model = Model(model.architecture, model.config, model.params, tokenizer)
    steps = generate(model, [tokenizer.bos], 120, Sampler(0.0), seed=0)
    ids = [int(step.tokens[0]) for step in steps]
    told = perplexity(model, tokenizer.decode(ids), batch=batch, context=64)
    shuffled = perplexity(model, tokenizer.decode(sorted(ids, key=lambda i: i * 7919 % 512)), batch=batch, context=64)
    assert told.n_bytes == len(tokenizer.decode(ids).encode())
    assert 0 < told.bits_per_byte < 0.6
    assert shuffled.bits_per_byte > 2


# Laws


@given(ids=st.lists(st.integers(0, 22), min_size=2, max_size=16))
def test_a_text_that_fits_is_scored_as_in_one_pass(make_model, ids):
    model = make_model("numpy", "float64")
    expected = token_log_probabilities(model, [ids])[0]
    assert np.all(np.abs(scores_of(model, ids) - expected) <= EXACT * np.max(np.abs(expected)))


@given(
    ids=st.lists(st.integers(0, 22), min_size=2, max_size=50),
    size=sizes,
    batch=st.integers(1, 5),
)
def test_each_token_is_scored_from_its_window_whatever_the_batch(make_model, ids, size, batch):
    model = make_model("numpy", "float64")
    found = scores_of(model, ids, context=size[0], stride=size[1], batch=batch)
    expected = np.concatenate(
        [
            token_log_probabilities(model, [ids[w.begin : w.end]])[0, w.scored - w.begin - 1 :]
            for w in windows(len(ids), size[0], size[1])
        ]
    )
    assert np.all(np.abs(found - expected) <= EXACT * np.max(np.abs(expected)))


def test_the_token_that_begins_a_document_lets_the_first_token_be_scored(make_model, tokenizer):
    model = make_model("numpy", "float64", tokenizer=tokenizer)
    ids = tokenizer.encode("the cat sat")
    plain, begun = perplexity(model, "the cat sat"), perplexity(model, "the cat sat", bos=True)
    assert plain.n_tokens == len(ids) - 1
    assert begun.n_tokens == len(ids)
    assert begun.n_bytes == len("the cat sat")
    expected = -np.sum(token_log_probabilities(model, [[tokenizer.eos, *ids]]))
    assert abs(begun.nats - expected) <= EXACT * expected


def test_a_vocabulary_that_begins_documents_does_so_unless_it_is_told_not_to(make_model, tokenizer):
    begun = Tokenizer(tokenizer.model, [*tokenizer.added, AddedToken(tokenizer.vocab_size, "<s>", special=True)])
    model, n_tokens = make_model("numpy", "float64", tokenizer=begun), len(begun.encode("the cat sat"))
    assert begun.bos == tokenizer.vocab_size
    assert perplexity(model, "the cat sat") == perplexity(model, "the cat sat", bos=True)
    assert perplexity(model, "the cat sat").n_tokens == n_tokens
    assert perplexity(model, "the cat sat", bos=False).n_tokens == n_tokens - 1


def test_windows_are_the_context_and_half_overlap_where_nothing_is_said(make_model, tokenizer):
    seen = []
    found = perplexity(make_model(tokenizer=tokenizer), TEXT * 2, batch=1, watch=lambda scored, of: seen.append(scored))
    assert seen == [*range(15, found.n_tokens, 8), found.n_tokens]


def test_texts_add_up(make_model, tokenizer):
    model = make_model("numpy", "float64", tokenizer=tokenizer)
    first, second = perplexity(model, TEXT), perplexity(model, "the dog ran to the mat")
    both = first + second
    assert both == Perplexity(*(a + b for a, b in zip(first, second, strict=True)))
    assert min(first.bits_per_byte, second.bits_per_byte) <= both.bits_per_byte <= max(first.bits_per_byte, second.bits_per_byte)


def test_the_watcher_is_told_of_every_token(make_model, tokenizer):
    seen = []
    found = perplexity(
        make_model(tokenizer=tokenizer), TEXT, context=8, batch=2, watch=lambda scored, of: seen.append((scored, of))
    )
    assert len(seen) > 2
    assert seen[-1] == (found.n_tokens, found.n_tokens)
    assert [scored for scored, _ in seen] == sorted({scored for scored, _ in seen})


def test_a_text_that_cannot_be_scored_is_refused(make_model, tokenizer):
    model = make_model(tokenizer=tokenizer)
    for text, options, says in [
        ("", {}, "the text has 0 tokens; the first only begins it"),
        ("t", {}, "the text has 1 tokens"),
        (TEXT, {"context": 17}, "context=17 is longer than the model's, max_positions=16"),
    ]:
        with pytest.raises(ValueError, match=says):
            perplexity(model, text, **options)
    bare = Model(model.architecture, model.config, model.params, Tokenizer(tokenizer.model))
    with pytest.raises(ValueError, match="no token of this vocabulary begins or ends a document"):
        perplexity(bare, TEXT, bos=True)
