"""Conversations: what is kept from turn to turn changes no answer, and no answer that is stopped leaves damage."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.array_api import generator, load
from refllm.decoding import Sampler, generate
from refllm.decoding import chat as chat_module
from refllm.decoding.chat import Conversation
from refllm.decoding.prefix_cache import common_prefix
from refllm.models import architecture, llama
from refllm.models.model import Model
from refllm.models.sequence import Output
from refllm.tokenizer import train_bpe
from refllm.tokenizer.chat_encoder import ChatEncoder

CHATML = (Path(__file__).parents[1] / "tokenizer" / "chat_templates" / "chatml.jinja").read_text()
BPE = train_bpe(
    "user system assistant\nYou help. Hello there, what is this " * 3, 290, special_tokens=["<|im_start|>", "<|im_end|>"]
)
ENCODER = ChatEncoder(BPE, CHATML)
END = ENCODER.end_of_turn()
CONFIG = llama.Config(BPE.vocab_size, 8, 2, 2, 1, 4, 12, max_positions=512, window=100)


def made(backend="numpy", config=CONFIG, name="llama"):
    """A model whose weights are large enough that its tokens differ from place to place."""
    xp, module = load(backend).xp, architecture(name)
    params = {
        n: xp.from_numpy(generator(1, "test", i).standard_normal(shape, dtype=np.float32) / 2)
        for i, (n, shape) in enumerate(module.parameter_shapes(config).items())
    }
    return Model(module, config, params, BPE)


def conversation(model=None, sampler=None, **options):
    return Conversation(model or made(), ENCODER, sampler or Sampler(0.0), 0, {END}, **{"max_tokens": 6} | options)


def tokens_of(pieces):
    return [piece.token for piece in pieces if piece.token is not None]


@pytest.mark.parametrize("temperature", [0.0, 1.5])
def test_a_conversations_cache_changes_no_answer(backend, temperature):
    model = made(backend.name)
    talk = conversation(model, Sampler(temperature), system="You help.")
    for message in ("Hello", "what is this", "this"):
        talk._drawn = 0  # so that the draws are those of a generation from the beginning
        prompt = ENCODER.encode([*talk.messages, {"role": "user", "content": message}], add_generation_prompt=True)
        alone = [int(step.tokens[0]) for step in generate(model, prompt, 6, Sampler(temperature), 0, stop=(END,))]
        assert tokens_of(talk.answer(message)) == alone
        assert talk.messages[-2:] == [{"role": "user", "content": message}, {"role": "assistant", "content": said(alone)}]


def said(tokens):
    """The text of an answer, special tokens left out."""
    return BPE.decode([token for token in tokens if not BPE.is_special(token)])


def test_of_a_later_prompt_only_what_is_new_is_read():
    talk = conversation()
    list(talk.answer("Hello"))
    first = talk.n_read
    before = list(talk._known)
    list(talk.answer("what"))
    prompt = ENCODER.encode(talk.messages[:-1], add_generation_prompt=True)
    assert first > 10
    assert talk.n_read == len(prompt) - common_prefix(before, prompt)
    assert talk.n_read < len(prompt) / 2


@given(st.integers(0, 5), st.integers(0, 5))
def test_an_answer_left_half_heard_is_kept_as_far_as_it_came(first, second):
    model, talk = made(), conversation()
    for heard, message in ((first, "Hello"), (second, "this")):
        before, answer = list(talk.messages), talk.answer(message)
        pieces = [next(answer).text for _ in range(heard)]
        answer.close()
        expected = [{"role": "user", "content": message}, {"role": "assistant", "content": "".join(pieces)}]
        assert talk.messages == before + (expected if heard else [])
    fresh = conversation(model)
    fresh.messages = list(talk.messages)
    assert tokens_of(talk.answer("what")) == tokens_of(fresh.answer("what"))


class Interrupted:
    """A Llama during whose n-th call the user stops the program, when keys and values are already written."""

    def __init__(self, n):
        self.left = n

    def forward(self, *arguments, **options):
        output = llama.forward(*arguments, **options)
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt
        return output


@pytest.mark.parametrize("n", range(1, 8))
def test_an_interrupted_call_leaves_no_wrong_keys_behind(n):
    talk = conversation(replace(made(), architecture=Interrupted(n)))
    for message in ("Hello", "what is this"):
        try:
            list(talk.answer(message))
        except KeyboardInterrupt:
            break
    assert n > 1 or talk.messages == [], "nothing was heard"
    fresh = conversation()
    fresh.messages = list(talk.messages)
    assert tokens_of(talk.answer("there")) == tokens_of(fresh.answer("there"))


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_a_cache_that_grows_changes_no_answer(name, backend, monkeypatch):
    sizes = {"vocab_size": BPE.vocab_size, "d_model": 8, "n_layers": 2, "n_heads": 2, "max_positions": 512, "d_ff": 12}
    config = CONFIG if name == "llama" else architecture("gpt2").Config(**sizes)
    wide = tokens_of(conversation(made(backend.name, config, name), max_tokens=60).answer("Hello"))
    monkeypatch.setattr(chat_module, "LEAST", 1)
    talk, rooms, narrow = conversation(made(backend.name, config, name), max_tokens=60), set(), []
    for piece in talk.answer("Hello"):
        narrow += [] if piece.token is None else [piece.token]
        rooms.add(len(talk._cache.layers[0].keys) * talk._cache.size)
    assert narrow == wide
    assert len(rooms) == 2, "it grew once"


class Reciting:
    """An architecture that makes one token after the other certain."""

    def __init__(self, tokens):
        self.tokens = iter(tokens)

    def forward(self, params, tokens, config, cache, *, valid=None, last=None):
        logits = np.zeros((1, 1, config.vocab_size), dtype=np.float32)
        logits[0, 0, next(self.tokens)] = 1
        return Output(logits, cache._replace(length=cache.length + tokens.shape[1]), None)


def test_an_answer_ends_at_the_token_that_ends_a_turn_and_does_not_tell_it():
    words, start = BPE.encode("Hello süß"), BPE.id_of("<|im_start|>")
    talk = conversation(replace(made(), architecture=Reciting([*words, start, END, *words])), max_tokens=None)
    pieces = list(talk.answer("x"))
    assert "".join(piece.text for piece in pieces) == "Hello süß"
    assert tokens_of(pieces) == [*words, start, END], "a special token that ends nothing is not told either"
    assert talk.messages[-1] == {"role": "assistant", "content": "Hello süß"}


def test_an_ordinary_token_may_end_answers_and_is_not_told_then_either():
    one, other = BPE.encode("a"), BPE.encode("b")
    model = replace(made(), architecture=Reciting([*one, *other, *one]))
    talk = Conversation(model, ENCODER, Sampler(0.0), 0, set(other))
    assert "".join(piece.text for piece in talk.answer("x")) == "a"


def test_an_answer_has_no_more_tokens_than_asked_for_or_than_the_context_holds():
    word = BPE.encode("a")
    talk = conversation(replace(made(), architecture=Reciting(word * 9)), max_tokens=3)
    assert len(tokens_of(talk.answer("x"))) == 3
    n = len(ENCODER.encode([{"role": "user", "content": "x"}], True))
    short = replace(made(), config=replace(CONFIG, max_positions=n + 2), architecture=Reciting(word * 9))
    assert len(tokens_of(conversation(short, max_tokens=None).answer("x"))) == 2
    short = replace(short, architecture=Reciting(word * 9))
    assert len(tokens_of(conversation(short, max_tokens=5).answer("x"))) == 2


def test_an_unfinished_character_is_told_at_the_end():
    talk = conversation(replace(made(), architecture=Reciting(BPE.encode("🌍")[:1])), max_tokens=1)
    assert "".join(piece.text for piece in talk.answer("x")) == "\ufffd"
    assert talk.messages[-1]["content"] == "\ufffd"


def test_later_answers_are_drawn_anew():
    talk = conversation(sampler=Sampler(50.0), max_tokens=4)
    drawn = []
    for _ in range(3):
        drawn.append(tokens_of(talk.answer("x")))
        talk.reset()
    assert len(set(map(tuple, drawn))) > 1
    assert talk.messages == []


def test_a_reset_keeps_what_the_model_was_told_first():
    talk = conversation(system="You help.")
    list(talk.answer("x"))
    talk.reset()
    assert talk.messages == [{"role": "system", "content": "You help."}]


def test_what_cannot_be_answered_is_refused_and_leaves_the_conversation_as_it_was():
    talk = conversation(replace(made(), config=replace(CONFIG, max_positions=40)))
    with pytest.raises(
        ValueError, match=r"the conversation has \d+ tokens, which leave no room .* context of 40; begin a new one"
    ):
        talk.answer("this " * 50)
    refusing = Conversation(made(), ChatEncoder(BPE, "{{ raise_exception('no') }}"), Sampler(0.0), 0, {END})
    with pytest.raises(ValueError, match="refuses this conversation: no"):
        refusing.answer("x")
    small = conversation(replace(made(), config=replace(CONFIG, vocab_size=5)))
    with pytest.raises(ValueError, match="vocab_size=5 allows"):
        small.answer("x")
    assert talk.messages == refusing.messages == small.messages == []


def test_logits_that_are_no_numbers_are_told():
    broken = replace(made(), params={name: p * np.float32(np.nan) for name, p in made().params.items()})
    with pytest.raises(ValueError, match="the logits are not finite numbers"):
        list(conversation(broken).answer("x"))


def test_a_model_that_sees_both_sides_is_refused():
    from refllm.models import bert

    encoder = Model(bert, None, {}, BPE)
    with pytest.raises(ValueError, match="cannot continue a conversation; load a decoder"):
        conversation(encoder)
    with pytest.raises(ValueError, match="max_tokens=0 asks for no token"):
        conversation(max_tokens=0)


def test_a_conversation_begun_anew_remembers_what_the_old_one_read():
    talk = conversation(system="You help.")
    list(talk.answer("Hello"))
    first = talk.n_read
    talk.reset()
    list(talk.answer("Hello"))
    assert talk.n_read == 1 < first, "the whole prompt is known; one token is read for the logits after it"
