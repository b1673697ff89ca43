"""NumPy's kernel for the words of byte-level BPE: its hash table, and words told apart."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from refllm.array_api import OPS, kernels, load
from refllm.backends.kernels import numpy_byte_level
from refllm.backends.kernels.numpy_byte_level import bounds, distinct, find, hash_table, readable
from refllm.tokenizer.byte_level_bpe import ByteLevelBPE

KEYS = st.lists(st.integers(0, 2**64 - 1) | st.integers(1, 50), min_size=1, max_size=60, unique=True)
# few bytes, zero among them, and lengths around those at which keys and comparisons change
WORDS = st.lists(
    st.text("\0ab", min_size=1, max_size=20) | st.builds("{}{}".format, st.text("ab", max_size=2), st.just("a" * 300))
)
TOKENS = [
    b"\0a",
    b"a\0",
    b"ab",
    b"\0\0",
    b"abab",
    b"aa",
    b"aaaa",
    b"a" * 7,
    b"a" * 8,
    b"b" * 15,
    b"bbbbbbbba",
    b"b" * 16,
    b"a\0\0\0\0\0\0\0\3",
]
BYTES = {i: bytes([i]) for i in range(256)}


@pytest.fixture(autouse=True)
def on():
    """Kernels on, whatever REFLLM_KERNELS says."""
    backend = load("numpy")
    with kernels(backend, backend.kernels):
        yield


@pytest.fixture(scope="module", params=[False, True], ids=["by merges", "whole words"])
def model(request):
    pairs = [(97, 98), (0, 97), (97, 0), (97, 97), (0, 0)]
    vocabulary = BYTES | dict(enumerate(TOKENS, 256))
    return ByteLevelBPE.from_merges(vocabulary, pairs, whole_words=request.param)


@given(keys=KEYS, others=KEYS, parts=st.integers(1, 2))
def test_a_hash_table_finds_its_keys_and_no_others(keys, others, parts):
    def of(numbers):
        array = np.array(numbers, np.uint64)
        return (array,) if parts == 1 else (array // 7, array % 7)

    table = hash_table(of(keys), np.arange(len(keys), dtype=np.int32) + 5)
    ids = dict(zip(keys, range(5, 5 + len(keys)), strict=True))
    assert find(table, of(keys + others)).tolist() == [ids.get(key, -1) for key in keys + others]


def test_keys_that_share_a_hash_stand_behind_each_other(monkeypatch):
    monkeypatch.setattr(numpy_byte_level, "SPREAD", np.uint64(0))
    keys = (np.arange(1, 40, dtype=np.uint64),)
    ids = np.roll(np.arange(39, dtype=np.int32), 5)
    assert find(hash_table(keys, ids), (np.arange(1, 60, dtype=np.uint64),)).tolist() == [*ids.tolist(), *[-1] * 20]


@pytest.mark.parametrize("spread", [numpy_byte_level.SPREAD, np.uint64(0)], ids=["spread", "all hashes alike"])
@given(words=WORDS.filter(bool))
def test_equal_words_are_one_and_others_are_not(words, spread):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(numpy_byte_level, "SPREAD", spread)
        data, eights = readable(np.frombuffer("".join(words).encode(), np.uint8))
        lengths = np.array([len(word) for word in words])
        chosen, which = distinct(eights, np.cumsum(lengths) - lengths, lengths)
    assert [words[i] for i in chosen[which]] == words
    if spread:
        short = [word for word in words if len(word) <= numpy_byte_level.LONGEST]
        assert len(chosen) == len(set(short)) + len(words) - len(short)


@given(words=WORDS.filter(bool))
def test_the_kernel_gives_the_ids_that_each_word_has_alone(model, words):
    lengths = np.array([len(word) for word in words])
    data = np.frombuffer("".join(words).encode(), np.uint8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(numpy_byte_level, "BLOCK", 3)
        ids = OPS["encode_words"](data, (np.cumsum(lengths) - lengths).astype(np.int32), model._tables["numpy"])
    assert ids.tolist() == [id for word in words for id in model._encode_word(word)]
    assert ids.dtype == np.int32


JOINED = ["日本", "本語", "語。", "é語", "の", "日", "本", "語", "😀", "é", "а", "д", "да", "aд"]
SCRIPTS = st.lists(st.text("日本木語。のé😀дab", min_size=1, max_size=12), min_size=1, max_size=10)


@pytest.fixture(scope="module")
def of_scripts():
    """Characters of several bytes and some tokens that join them, in part too."""
    tokens = [word.encode() for word in JOINED] + ["本".encode()[1:] + "語".encode()[:2], "の".encode()[2:] + "日".encode()[:1]]
    prefixes = dict.fromkeys(token[:end] for token in tokens for end in range(2, len(token) + 1))
    whole, part = "の".encode(), "😀".encode()[:2]  # joined by one token, which no shorter one does
    vocabulary = BYTES | dict(enumerate([*prefixes, whole + part], 256))
    ids = {token: id for id, token in vocabulary.items()}
    pairs = [(ids[token[:-1]], token[-1]) for token in prefixes]
    return ByteLevelBPE.from_merges(vocabulary, [*pairs, (ids[whole], ids[part])])


@example(["の🙏"])
@given(words=SCRIPTS)
def test_words_cut_where_no_token_joins_them_keep_their_ids(of_scripts, words):
    lengths = np.array([len(word.encode()) for word in words])
    data = np.frombuffer("".join(words).encode(), np.uint8)
    starts = np.cumsum(lengths) - lengths
    ids = OPS["encode_words"](data, starts.astype(np.int32), of_scripts._tables["numpy"])
    assert ids.tolist() == [id for word in words for id in of_scripts._encode_word(word)]


def test_a_word_is_cut_between_characters_that_no_token_joins(of_scripts):
    data, eights = readable(np.frombuffer("日本語日の語".encode(), np.uint8))
    joints = numpy_byte_level.tables_of(of_scripts._tables["numpy"]).joints
    assert bounds(data, eights, np.array([0]), joints).tolist() == [0, 9, 12, 15, 18]  # 日本語 日 の 語


def test_words_whose_bytes_look_like_the_length_of_another_are_told_apart(model):
    words = ["a", "a" + 6 * "\0" + "\1", "bbbbbbbba", "bbbbbbbba" + 6 * "\0" + "\1"]
    lengths = np.array([len(word) for word in words])
    data = np.frombuffer("".join(words).encode(), np.uint8)
    ids = OPS["encode_words"](data, (np.cumsum(lengths) - lengths).astype(np.int32), model._tables["numpy"])
    assert ids.tolist() == [id for word in words for id in model._encode_word(word)]


def test_no_words_have_no_ids(model):
    empty = np.zeros(0, np.int32)
    assert OPS["encode_words"](empty.astype(np.uint8), empty, model._tables["numpy"]).tolist() == []
