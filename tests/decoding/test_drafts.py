"""Drafts: the look-up is its definition, and a draft that does not fit the model is refused."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.array_api import load
from refllm.conformance.specification import definitions
from refllm.decoding import Sampler
from refllm.decoding.drafts import DraftModel, PromptLookup
from refllm.models import bert, llama
from refllm.models.model import Model
from refllm.tokenizer import train_bpe

CONFIG = llama.Config(260, 4, 1, 1, 1, 2, 4, max_positions=32)


@given(
    st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=6), min_size=1, max_size=4), st.integers(1, 4), st.integers(0, 6)
)
def test_a_look_up_agrees_with_its_definition_as_the_text_grows(parts, longest, most):
    model, text = Model.initialise("llama", CONFIG, seed=0, backend="numpy"), []
    drafter = PromptLookup(longest, 6).begin(model, len(parts[0]), 99, Sampler(), seed=0)
    for part in parts:
        text = text + part
        drafted = drafter.propose(text, most, None)
        assert drafted.tokens.tolist() == definitions()["looked_up"](text, longest, most)
        assert drafted.tokens.dtype == np.int32
        assert drafted.q is None


def drafting(draft, model):
    return draft.begin(model, 1, 8, Sampler(), seed=0)


def test_a_draft_of_another_vocabulary_is_refused():
    one, other = (train_bpe(text * 9, 260) for text in ("a cat sat", "the dog did"))
    model = Model.initialise("llama", CONFIG, seed=0, backend="numpy", tokenizer=one)
    small = Model.initialise("llama", replace(CONFIG, vocab_size=259), seed=0, backend="numpy", tokenizer=one)
    with pytest.raises(ValueError, match="the draft has 259 tokens and the model 260; they must share one vocabulary"):
        drafting(DraftModel(small, 2), model)
    with pytest.raises(
        ValueError, match=r"token 256 is b'.*' to the draft and b'.*' to the model; they must share one vocabulary"
    ):
        drafting(DraftModel(replace(model, tokenizer=other), 2), model)
    drafting(DraftModel(replace(model, tokenizer=train_bpe("a cat sat" * 9, 260)), 2), model)
    drafting(DraftModel(replace(model, tokenizer=None), 2), model)


def test_a_draft_on_another_backend_is_refused():
    load("strict")
    here, there = (Model.initialise("llama", CONFIG, seed=0, backend=name) for name in ("numpy", "strict"))
    with pytest.raises(ValueError, match="the draft lies on strict and the model on numpy"):
        drafting(DraftModel(there, 2), here)


def test_a_draft_of_nothing_and_a_masked_draft_are_refused():
    model = Model.initialise("llama", CONFIG, seed=0, backend="numpy")
    for make in (lambda: DraftModel(model, 0), lambda: PromptLookup(2, 0)):
        with pytest.raises(ValueError, match="n=0 drafts no token"):
            make()
    with pytest.raises(ValueError, match="longest=0 looks for no token"):
        PromptLookup(0, 2)
    config = bert.Config(vocab_size=5, d_model=4, n_layers=1, n_heads=1, max_positions=8, d_ff=4)
    with pytest.raises(ValueError, match="does not continue a text"):
        DraftModel(Model.initialise("bert", config, seed=0), 2)
