"""Texts that were read before: they spare reading, change no logit, and stay as they are whoever goes on from them."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.conformance.specification import definitions
from refllm.decoding import Sampler, continue_text, new_cache, prefill
from refllm.decoding.prefix_cache import PrefixCache, common_prefix
from refllm.layers.kv_cache import fork, n_bytes
from refllm.models.model import Model
from refllm.tokenizer import train_bpe

from .test_generate import bound, full_logits, widest

TEXTS = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=9), min_size=1, max_size=6)
BLOCK = 2


def read(model, prefixes, ids, slack=0):
    """The logits after a text, read behind what is known of it, and how much that is; then it is kept."""
    cache, known = prefixes.lookup(ids)
    if cache is None:
        cache = new_cache(model, 1, 16, size=BLOCK, slack=slack)
    logits, cache = prefill(model, model.tokens([ids[known:]]), cache)
    prefixes.keep(ids, cache)
    return model.backend.xp.to_numpy(logits)[0], known


@given(st.data())
def test_logits_after_a_lookup_equal_those_without_for_every_history_of_calls(backend, make_model, data):
    dtype = widest(backend)
    model, slack = make_model(backend.name, dtype), data.draw(st.integers(0, 3), "slack")
    prefixes = PrefixCache(model, data.draw(st.sampled_from([1000, 4000, 10**9]), "bytes"))
    for ids in data.draw(TEXTS, "texts"):
        logits, known = read(model, prefixes, ids, slack)
        expected = full_logits(make_model, ids)[-1]
        assert np.all(np.abs(logits - expected) <= bound(expected, dtype)), f"{known} tokens were known"
        assert prefixes.n_bytes <= prefixes.max_bytes


def plain(model):
    """Whether its layers see all positions."""
    return getattr(model.config, "window", None) is None


@given(TEXTS)
def test_the_longest_known_beginning_is_found(make_model, texts):
    model = make_model("numpy")
    prefixes = PrefixCache(model, 10**9)
    for i, ids in enumerate(texts):
        longest = definitions()["longest_known"](texts[:i], ids)
        _, known = read(model, prefixes, ids)
        assert known == longest if plain(model) else known <= longest


def test_what_goes_on_from_a_text_never_changes_it(backend, make_model):
    model, ids = make_model(backend.name), [1, 2, 3, 4, 5]
    prefixes = PrefixCache(model, 10**9)
    prefixes.keep(ids, prefill(model, model.tokens([ids]), new_cache(model, 1, len(ids), size=BLOCK))[1])

    def blocks():
        (cache,) = prefixes._entries.values()
        return [model.backend.xp.to_numpy(b) for held in cache.layers for b in (*held.keys, *held.values)]

    before = blocks()
    for following in ([6, 7], [8, 9]):
        cache, known = prefixes.lookup([*ids, *following])
        assert known == 5
        prefill(model, model.tokens([following]), cache)
        assert all(np.array_equal(a, b) for a, b in zip(before, blocks(), strict=True))


def test_a_prompt_that_is_known_is_continued_as_before(make_model):
    tokenizer = train_bpe("what is this " * 9, 260)
    config = replace(make_model("numpy").config, vocab_size=260, max_positions=64)
    model = Model.initialise(make_model("numpy").architecture.__name__.rpartition(".")[2], config, 0, "numpy", tokenizer)
    prefixes, prompt = PrefixCache(model, 10**9), "what is this what"
    texts = [
        [piece.token for piece in continue_text(model, prompt, 6, Sampler(), seed=3, prefixes=known)]
        for known in (None, prefixes, prefixes)
    ]
    assert texts[0] == texts[1] == texts[2]
    ids = tokenizer.encode(prompt)
    assert prefixes.lookup([*ids, 1])[1] == len(ids)


def test_texts_that_were_continued_share_their_blocks(make_model):
    model = make_model("numpy")
    if not plain(model):
        pytest.skip("a window drops the beginning")
    prefixes, one = PrefixCache(model, 10**9), [1, 2, 3, 4, 5, 6]
    read(model, prefixes, one)
    alone = prefixes.n_bytes
    read(model, prefixes, [1, 2, 3, 4, 9, 9])
    assert len(prefixes) == 2
    assert prefixes.n_bytes == alone + alone // 3, "two of three blocks are the same"
    assert not any(held.spare for cache in prefixes._entries.values() for held in cache.layers), "nothing is kept for no text"
    read(model, prefixes, [*one, 7])
    assert len(prefixes) == 2, "what is continued goes into its continuation"


def test_the_text_used_least_recently_leaves_first(make_model):
    model = make_model("numpy")
    cache = prefill(model, model.tokens([[1, 1, 1, 1]]), new_cache(model, 1, 4, size=BLOCK))[1]
    prefixes = PrefixCache(model, 2 * n_bytes(cache))
    for first in (1, 2):
        read(model, prefixes, [first] * 4)
    assert prefixes.lookup([1] * 4 + [0])[1] == 4  # used again
    read(model, prefixes, [3] * 4)
    assert prefixes.lookup([1] * 4 + [0])[1] == 4
    assert prefixes.lookup([2] * 4 + [0])[1] == 0
    read(model, prefixes, list(range(15)))
    assert prefixes.lookup([1] * 4 + [0])[1] == 4 or not plain(model), "a text too large to keep drives out no other"


def test_a_window_gives_back_whole_texts_and_as_much_less_as_its_slack(make_model):
    model, ids = make_model("numpy"), [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]
    for slack in (0, 2, 4):
        prefixes = PrefixCache(model, 10**9)
        read(model, prefixes, ids, slack)
        assert prefixes.lookup([*ids, 11])[1] == 10
        assert prefixes.lookup([*ids[: 10 - slack], 11])[1] == 10 - slack
        assert prefixes.lookup([*ids[:3], 11])[1] == (3 if plain(model) else 0)


def test_a_text_and_a_cache_that_do_not_belong_together_are_refused(make_model):
    model = make_model("numpy")
    with pytest.raises(ValueError, match="max_bytes=0 keeps nothing"):
        PrefixCache(model, 0)
    prefixes = PrefixCache(model, 10**9)
    for rows, ids in ((1, [1, 2]), (2, [1, 2, 3])):
        cache = prefill(model, model.tokens([[1, 2, 3]] * rows), new_cache(model, rows, 4))[1]
        with pytest.raises(ValueError, match=f"a text of {len(ids)} tokens needs the cache that holds just them"):
            prefixes.keep(ids, fork(cache)[0])
    assert prefixes.lookup([1]) == (None, 0)


@given(st.lists(st.integers(0, 2)), st.lists(st.integers(0, 2)))
def test_a_common_prefix_is_the_longest(one, other):
    n = common_prefix(one, other)
    assert one[:n] == other[:n]
    assert n == min(len(one), len(other)) or one[n] != other[n]
