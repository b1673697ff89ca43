"""Streaming: the pieces are the text, and none of them holds half a character."""

import functools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.conformance.specification import definitions
from refllm.decoding import Sampler, continue_text, generate
from refllm.decoding.text import encode_prompt
from refllm.models import llama
from refllm.models.model import Model
from refllm.tokenizer import AddedToken, Tokenizer, train_bpe
from refllm.tokenizer.sentence_piece import SentencePieceBPE, merges_by_score

WRITING = "Grüße, δοκιμή, 試験 и тест 🌍👩‍👩‍👧! " * 20


@functools.cache
def made(context=64, special=("<|endoftext|>",)):
    """A model of random weights, which soon writes every byte, so most of its characters are broken ones."""
    tokenizer = train_bpe(WRITING, 280, special_tokens=special)
    config = llama.Config(tokenizer.vocab_size, 8, 1, 2, 2, 4, 8, max_positions=context)
    model = Model.initialise("llama", config, seed=0, backend="numpy")
    return Model(model.architecture, model.config, model.params, tokenizer)


@given(st.text(min_size=1, max_size=5), st.integers(0, 2**32))
def test_the_pieces_are_the_text_and_hold_whole_characters(prompt, seed):
    model = made()
    ids = encode_prompt(model, prompt)
    n = min(24, model.config.max_positions - len(ids))
    tokens = [int(step.tokens[0]) for step in generate(model, ids, n, Sampler(2.0), seed, stop=(model.tokenizer.eos,))]
    pieces = list(continue_text(model, prompt, n, Sampler(2.0), seed))
    assert [piece.token for piece in pieces if piece.token is not None] == tokens
    written = tokens[:-1] if tokens[-1] == model.tokenizer.eos else tokens
    assert "".join(piece.text for piece in pieces) == model.tokenizer.decode(written)
    for piece in pieces:
        piece.text.encode()  # a half of a surrogate pair could not be


@given(st.text(alphabet="ü試🌍é", min_size=1, max_size=12))
def test_a_character_of_several_tokens_comes_whole(text):
    model = made()
    ids = model.tokenizer.encode(text)
    if len(ids) >= model.config.max_positions - 1:
        return
    recited = iter(ids)
    forced = Model(_Reciting(recited, model.config.vocab_size), model.config, model.params, model.tokenizer)
    pieces = list(continue_text(forced, "x", len(ids), Sampler(0.0), seed=0))
    assert "".join(piece.text for piece in pieces) == text
    assert all("\ufffd" not in piece.text for piece in pieces)


class _Reciting:
    """An architecture that makes one token after the other certain."""

    def __init__(self, tokens, vocab_size):
        self.tokens, self.vocab_size = tokens, vocab_size

    def forward(self, params, tokens, config, cache, *, valid=None, last=None):
        logits = np.zeros((1, 1, self.vocab_size), dtype=np.float32)
        logits[0, 0, next(self.tokens)] = 1
        return llama.Output(logits, cache, None)


@given(st.integers(0, 2**32), st.data())
def test_a_stop_string_ends_the_text_where_it_would_have_come(seed, data):
    model = made()
    free = "".join(piece.text for piece in continue_text(model, "x", 16, Sampler(2.0), seed, stop_tokens=()))
    start = data.draw(st.integers(0, len(free) - 1))
    strings = [free[start : start + data.draw(st.integers(1, 4))], "never to come"]
    for keep in (False, True):
        given = {"stop_tokens": (), "stop_strings": strings, "keep_stop": keep}
        pieces = list(continue_text(model, "x", 16, Sampler(2.0), seed, **given))
        assert "".join(piece.text for piece in pieces) == definitions()["until_stop"](free, strings, keep)
        assert [piece.finish for piece in pieces] == [None] * (len(pieces) - 1) + ["stop"]


@given(st.integers(0, 2**32))
def test_a_stop_string_that_never_comes_changes_no_text(seed):
    model = made()
    free, stopped = (
        list(continue_text(model, "x", 12, Sampler(2.0), seed, stop_strings=strings)) for strings in ((), ("\0never\0",))
    )
    assert [piece.token for piece in free] == [piece.token for piece in stopped]
    assert "".join(piece.text for piece in free) == "".join(piece.text for piece in stopped)
    assert stopped[-1].finish in ("length", "end")


def test_a_stop_string_is_found_across_tokens_and_told_by_none():
    model = made()
    tokens = model.tokenizer.encode("one試two")
    forced = replace(model, architecture=_Reciting(iter(tokens), model.config.vocab_size))
    pieces = list(continue_text(forced, "x", len(tokens), Sampler(0.0), seed=0, stop_strings=["e試t"]))
    assert "".join(piece.text for piece in pieces) == "on"
    assert len(pieces) < len(tokens)


def test_an_unfinished_character_and_what_was_held_back_come_with_the_last_token():
    model = made()
    tokens = [*model.tokenizer.encode("ab"), *model.tokenizer.encode("🐌")[:1]]
    forced = replace(model, architecture=_Reciting(iter(tokens), model.config.vocab_size))
    pieces = list(continue_text(forced, "x", len(tokens), Sampler(0.0), seed=0, stop_strings=["bc"]))
    assert "".join(piece.text for piece in pieces) == "ab\ufffd"
    assert pieces[-1].text.endswith("\ufffd")
    assert all(piece.token is not None for piece in pieces)


def test_other_tokens_may_end_a_text_than_the_end_of_the_document():
    model = made()
    a, b, eos = model.tokenizer.encode("a")[0], model.tokenizer.encode("b")[0], model.tokenizer.eos

    def forced():
        return replace(model, architecture=_Reciting(iter([a, eos, b, a]), model.config.vocab_size))

    usual = list(continue_text(forced(), "x", 4, Sampler(0.0), seed=0))
    other = list(continue_text(forced(), "x", 4, Sampler(0.0), seed=0, stop_tokens={b}))
    none = list(continue_text(forced(), "x", 4, Sampler(0.0), seed=0, stop_tokens=()))
    assert [(piece.token, piece.finish) for piece in usual] == [(a, None), (eos, "end")]
    assert [(piece.token, piece.finish) for piece in other] == [(a, None), (eos, None), (b, "end")]
    assert [piece.finish for piece in none] == [None] * 3 + ["length"]


def test_a_piece_tells_its_log_probability_by_the_model_itself():
    model = made()
    text = encode_prompt(model, "試")
    for piece in continue_text(model, "試", 5, Sampler(0.5, top_k=2), seed=3, logprobs=2):
        logits = model.logits([text])[0, -1].astype(np.float64)
        expected = logits - np.log(np.sum(np.exp(logits)))
        np.testing.assert_allclose(piece.logprob, expected[piece.token], rtol=1e-4)
        assert [token for token, _ in piece.alternatives] == np.argsort(-expected, kind="stable")[:2].tolist()
        np.testing.assert_allclose([nats for _, nats in piece.alternatives], np.sort(expected)[::-1][:2], rtol=1e-4)
        text.append(piece.token)
    assert all(piece.logprob is None for piece in continue_text(model, "試", 2, Sampler(0.5), seed=3))


def test_the_end_of_the_document_ends_the_text_unwritten():
    model = made()
    a, eos = model.tokenizer.encode("a")[0], model.tokenizer.eos
    forced = Model(_Reciting(iter([a, a, eos, a]), model.config.vocab_size), model.config, model.params, model.tokenizer)
    assert [piece.text for piece in continue_text(forced, "x", 10, Sampler(0.0), seed=0)] == ["a", "a", ""]


def test_a_llamas_prompt_begins_a_document_and_its_words_keep_their_spaces():
    pieces = {3 + 256: " a", 4 + 256: "a"}
    bpe = SentencePieceBPE(pieces, merges_by_score(pieces, {259: 0.0, 260: -1.0}), byte_ids=range(3, 259))
    special = [AddedToken(id, name, True) for id, name in enumerate(["<unk>", "<s>", "</s>"])]
    config = llama.Config(261, 8, 1, 2, 2, 4, 8, max_positions=16)
    forced = Model(_Reciting(iter([259, 260, 259, 2]), 261), config, made().params, Tokenizer(bpe, special))
    assert encode_prompt(forced, "a") == [1, 259]
    assert encode_prompt(forced, "") == [1]
    assert "".join(piece.text for piece in continue_text(forced, "a", 10, Sampler(0.0), seed=0)) == " aa a"


def test_without_a_number_the_text_fills_the_context():
    model = made(context=12, special=())
    n = len(encode_prompt(model, "test"))
    assert sum(piece.token is not None for piece in continue_text(model, "test", None, Sampler(1.0), seed=0)) == 12 - n


def test_a_prompt_that_spells_a_special_token_is_ordinary_text():
    model = made()
    assert model.tokenizer.eos not in encode_prompt(model, "<|endoftext|>")


def test_an_empty_prompt_or_a_model_without_tokenizer_is_refused():
    with pytest.raises(ValueError, match="the prompt is empty"):
        continue_text(made(), "", 1, Sampler(0.0), seed=0)
    mute = Model(made().architecture, made().config, made().params)
    with pytest.raises(ValueError, match="the model has no tokenizer"):
        continue_text(mute, "x", 1, Sampler(0.0), seed=0)


def test_a_prompt_longer_than_the_context_is_refused():
    with pytest.raises(ValueError, match=r"tokens, and one more does not fit the model's context of 64: shorten it by at least"):
        continue_text(made(), "試験" * 100, None, Sampler(0.0), seed=0)
    with pytest.raises(ValueError, match=r"the prompt has \d+ tokens, and 9 more do not fit the model's context of 64"):
        continue_text(made(), "試験" * 100, 9, Sampler(0.0), seed=0)


def test_a_prompt_longer_than_the_context_may_be_cut():
    model = made()
    ids = encode_prompt(model, "試験 δοκιμή" * 40)
    for overflow, kept in (("keep_end", ids[-54:]), ("keep_start", ids[:54])):
        expected = [int(step.tokens[0]) for step in generate(model, kept, 10, Sampler(0.0), 0, stop=(model.tokenizer.eos,))]
        pieces = list(continue_text(model, "試験 δοκιμή" * 40, 10, Sampler(0.0), 0, overflow=overflow))
        assert [piece.token for piece in pieces] == expected
