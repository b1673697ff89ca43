"""The ids of all words of a text at once, on every backend."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.array_api import kernels, load
from refllm.conformance.specification import definitions
from refllm.tokenizer.byte_level_bpe import ByteLevelBPE
from refllm.tokenizer.encode_words import encode_words, moved, spelled, spellings_of, whole_words
from refllm.tokenizer.rank_merges import RankMerges

BYTES = {i: bytes([i]) for i in range(256)}
# ab, abc and bc are merged; no merge makes abcd, bca or a token of 20 bytes
SMALL = BYTES | {
    256: b"ab",
    257: b"abc",
    258: b"bc",
    259: b"abcd",
    260: b"bca",
    261: b"abc" * 6 + b"da",
    262: b"dd",
    263: b"dddd",
}
PAIRS = [(97, 98), (256, 99), (98, 99), (100, 100), (262, 262)]
WORDS = st.lists(st.text("abcd", min_size=1, max_size=40) | st.sampled_from(["abcd", "bca", "abc" * 6 + "da"]), max_size=30)


MODELS = {
    "by merges": ByteLevelBPE.from_merges(SMALL, PAIRS),
    "whole words": ByteLevelBPE.from_merges(SMALL, PAIRS, whole_words=True),
    "by ranks": ByteLevelBPE(SMALL, RankMerges(SMALL)),
    "by ranks, whole words": ByteLevelBPE(SMALL, RankMerges(SMALL), whole_words=True),
}


@pytest.fixture(scope="module", params=MODELS)
def model(request):
    return MODELS[request.param]


def on(backend, words, model):
    xp = backend.xp
    lengths = np.array([len(word) for word in words])
    data = xp.from_numpy(np.frombuffer("".join(words).encode(), np.uint8))
    starts = xp.from_numpy((np.cumsum(lengths) - lengths).astype(np.int32))
    return xp.to_numpy(encode_words(data, starts, moved(model._tables["numpy"], xp))).tolist()


@given(words=WORDS.filter(bool))
def test_words_at_once_have_the_ids_that_each_has_alone(backend, model, words):
    ids = on(backend, words, model)
    assert ids == [id for word in words for id in model._encode_word(word)]
    assert ids == defined(words, model)


def defined(words, model):
    """The ids by the definition in the specification."""
    starts = [sum(map(len, words[:i])) for i in range(len(words))]
    merges = [[[left, right], model.merges.get((left, right))[1]] for left, right in model.pairs()]
    spellings = []
    if model.whole_words:
        tokens = [(id, list(token)) for id, token in SMALL.items() if len(token) > 1]
        spellings = [[id, definitions()["bpe"](token, merges)] for id, token in tokens]
    return definitions()["encode_words"](list("".join(words).encode()), starts, list(range(256)), merges, spellings)


@given(words=WORDS.filter(bool))
def test_words_at_once_have_the_same_ids_without_kernels(model, words):
    numpy = load("numpy")
    with kernels(numpy, {}):
        plain = on(numpy, words, model)
    assert plain == [id for word in words for id in model._encode_word(word)]


def test_a_word_that_spells_a_token_becomes_it(backend):
    xp = backend.xp
    spellings = moved(spellings_of({7: (1, 2), 8: (1, 2, 3), 9: (2, 2)}), xp)
    ids = xp.asarray([1, 2, 1, 2, 3, 1, 2, 2, 2, 1, 2, 3, 3], dtype=xp.int32)
    starts = xp.asarray([0, 2, 5, 6, 7, 9], dtype=xp.int32)  # 12 123 1 2 22 1233
    assert xp.to_numpy(spelled(ids, starts, spellings)).tolist() == [7, 8, -1, -1, 9, -1]
    found, begins = whole_words(ids, starts, spellings)
    assert xp.to_numpy(found).tolist() == [7, 8, 1, 2, 9, 1, 2, 3, 3]
    assert xp.to_numpy(begins).tolist() == [0, 1, 2, 3, 4, 5]


SEQUENCES = st.lists(st.integers(1, 3), min_size=1, max_size=4).map(tuple)


@given(words=st.lists(SEQUENCES, min_size=1, max_size=12), sequences=st.sets(SEQUENCES, min_size=1, max_size=6))
def test_whole_words_are_replaced_as_defined(backend, words, sequences):
    xp = backend.xp
    spelled_by = dict(enumerate(sequences, 10))
    lengths = np.array([len(word) for word in words])
    starts = xp.from_numpy((np.cumsum(lengths) - lengths).astype(np.int32))
    symbols = xp.asarray([id for word in words for id in word], dtype=xp.int32)
    ids, begins = whole_words(symbols, starts, moved(spellings_of(spelled_by), xp))
    spellings = [[token, list(sequence)] for token, sequence in spelled_by.items()]
    expected = definitions()["whole_words"]([list(word) for word in words], spellings)
    assert [word.tolist() for word in np.split(xp.to_numpy(ids), xp.to_numpy(begins)[1:])] == expected
