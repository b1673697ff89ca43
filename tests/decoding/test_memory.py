"""What samplers remember: told token by token as at once, and rows that are taken and joined."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.decoding import Memory, Sampler, join_memory, observe, remember, take_memory
from refllm.decoding.sampling import adjusted

V = 7
FULL = Sampler(repetition_penalty=1.3, frequency_penalty=0.5, no_repeat_ngram=2)
STEERED = Sampler(mirostat=(2.0, 0.1), repetition_penalty=1.3)
ROW = st.lists(st.integers(0, V - 1), min_size=1, max_size=6)


def told(backend, sampler, prompt, text=()):
    """The memory of one row."""
    xp = backend.xp
    memory = remember(sampler, np.array([prompt], np.int32), None, xp, V)
    logits = xp.from_numpy(np.linspace(-1, 1, V, dtype=np.float32)[None])
    for token in text:
        memory = observe(memory, xp.from_numpy(np.array([token], np.int32)), logits, sampler)
    return memory


def plain(backend, memory):
    return Memory(*(None if x is None else backend.xp.to_numpy(x) for x in memory))


def test_a_sampler_that_asks_nothing_needs_no_memory(backend):
    for sampler in (Sampler(0), Sampler(), Sampler(0.8, top_k=3, logit_bias={1: 2.0})):
        assert remember(sampler, np.zeros((2, 3), np.int32), None, backend.xp, V) is None
    assert take_memory(None, [0]) is None
    assert join_memory([None, None]) is None


def test_only_what_is_asked_is_kept(backend):
    def kept(sampler):
        memory = remember(sampler, np.zeros((2, 3), np.int32), None, backend.xp, V)
        return [name for name in Memory._fields if getattr(memory, name) is not None]

    assert kept(Sampler(repetition_penalty=1.1)) == ["seen"]
    assert kept(Sampler(presence_penalty=1)) == ["counts"]
    assert kept(Sampler(no_repeat_ngram=3)) == ["history"]
    assert kept(Sampler(mirostat=(3, 0.1))) == ["mu"]


@given(ROW, ROW)
def test_a_text_told_token_by_token_is_remembered_whole(backend, prompt, text):
    memory = plain(backend, told(backend, FULL, prompt, text))
    whole = prompt + text
    np.testing.assert_array_equal(memory.seen, [[i in whole for i in range(V)]])
    np.testing.assert_array_equal(memory.counts, [[text.count(i) for i in range(V)]])
    np.testing.assert_array_equal(memory.history, [whole])


@given(st.lists(st.tuples(ROW, ROW), min_size=1, max_size=4), st.data())
def test_rows_taken_and_joined_are_as_they_were(backend, texts, data):
    xp = backend.xp
    for sampler in (FULL, STEERED):
        alone = [told(backend, sampler, prompt, text) for prompt, text in texts]
        rows = data.draw(st.lists(st.integers(0, len(texts) - 1), min_size=1, max_size=4))
        longest = max(len(texts[r][0]) + len(texts[r][1]) for r in rows)
        as_array = xp.from_numpy(np.array(rows, np.int32))
        taken = [take_memory(join_memory(alone), as_array), take_memory(join_memory(alone), rows, longest)]
        logits = np.random.default_rng(0).normal(0, 1, (len(rows), V)).astype(np.float32)
        for memory in taken:
            found = xp.to_numpy(adjusted(xp.from_numpy(logits), sampler, memory))
            for b, r in enumerate(rows):
                expected = adjusted(xp.from_numpy(logits[b : b + 1]), sampler, alone[r])
                np.testing.assert_array_equal(found[b], xp.to_numpy(expected)[0])
            if sampler is STEERED:
                np.testing.assert_array_equal(xp.to_numpy(memory.mu), [xp.to_numpy(alone[r].mu)[0] for r in rows])
        if sampler is FULL:
            assert taken[1].history.shape[1] == longest


def test_no_token_changes_nothing_that_is_penalised(backend):
    xp = backend.xp
    memory = told(backend, FULL, [1, 2, 1], [2])
    after = observe(memory, xp.from_numpy(np.array([-1], np.int32)), None, FULL)
    for name in ("seen", "counts"):
        np.testing.assert_array_equal(xp.to_numpy(getattr(after, name)), xp.to_numpy(getattr(memory, name)))


def test_memories_of_different_samplers_are_not_joined(backend):
    with pytest.raises(ValueError, match="memories of different samplers cannot be joined"):
        join_memory([None, told(backend, FULL, [1])])
