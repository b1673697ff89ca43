"""Text becomes tokens on disk, and batches that only their address decides."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.array_api import load as load_backend
from refllm.tokenizer import train_bpe
from refllm.training import data
from refllm.training.data import Corpus

TOKENIZER = train_bpe("so many lines, so little time\n", 262)


def corpus(n_train=100, n_held_out=50):
    return Corpus(
        np.arange(n_train, dtype=np.uint16), np.arange(1000, 1000 + n_held_out, dtype=np.uint16), np.ones(2000, np.int32)
    )


class Wide:
    """A tokenizer with more tokens than 16 bits count: each character is its code point."""

    vocab_size, eos = 0x110000, None

    def encode_array(self, text, allowed_special=(), backend=None):
        return np.array([ord(c) for c in text], np.int32)

    def bytes_of(self, id):
        if 0xD800 <= id < 0xE000:
            raise ValueError(f"{id} is no character")
        return chr(id).encode()


def prepared(folder, texts, held_out=0.2, tokenizer=TOKENIZER):
    data.prepare(texts, held_out, tokenizer, "hash", folder)
    return data.load(folder, tokenizer, "hash")


@given(seed=st.integers(0, 2**64 - 1), step=st.integers(0, 10**9), k=st.integers(1, 4), rows=st.integers(1, 3))
def test_micro_batches_cut_the_windows_of_one_batch(seed, step, k, rows):
    def windows(index, rows, k):
        return data.batch(corpus(), seed, step, index, context=7, batch=rows, accumulation=k)

    whole = windows(0, rows * k, 1)
    pieces = [windows(i, rows, k) for i in range(k)]
    for part in (0, 1):
        np.testing.assert_array_equal(np.concatenate([piece[part] for piece in pieces]), whole[part])
        assert (whole[part].shape, whole[part].dtype) == ((rows * k, 7), np.int32)


@given(seed=st.integers(0, 9), step=st.integers(0, 10**6))
def test_targets_are_the_tokens_that_follow(seed, step):
    tokens, targets = data.batch(corpus(), seed, step, 0, context=7, batch=5, accumulation=1)
    assert np.all(targets == tokens + 1)
    assert np.all((tokens >= 0) & (targets < 100))


def test_every_window_can_be_drawn_and_no_other():
    begins = {
        int(row[0]) for step in range(300) for row in data.batch(corpus(12), 0, step, 0, context=7, batch=4, accumulation=1)[0]
    }
    assert begins == set(range(5))


def test_the_address_decides_the_batch():
    def tokens(seed, step):
        return data.batch(corpus(), seed, step, 0, context=7, batch=5, accumulation=1)[0].tolist()

    assert tokens(1, 2) == tokens(1, 2)
    assert tokens(1, 2) != tokens(1, 3)
    assert tokens(1, 2) != tokens(2, 2)


def test_batches_are_the_same_on_every_backend(backend):
    for step in range(3):
        pair = data.batch(corpus(), 3, step, 0, context=7, batch=5, accumulation=1)
        for host in pair:
            array = backend.xp.from_numpy(host)
            assert array.dtype == backend.xp.int32
            np.testing.assert_array_equal(load_backend(backend.name).xp.to_numpy(array), host)


@given(n=st.integers(8, 90), rows=st.integers(1, 5), windows=st.integers(0, 15))
def test_evaluation_windows_are_spread_and_do_not_overlap(n, rows, windows):
    batches = list(data.evaluation_batches(corpus(n_held_out=n), context=7, batch=rows, windows=windows))
    targets = np.concatenate([t.reshape(-1) for _, t in batches]).tolist()
    available = (n - 1) // 7
    assert len(targets) == 7 * (min(windows, available) if windows else available)
    assert targets == sorted(set(targets))
    assert all(len(tokens) <= rows and np.all(t == tokens + 1) for tokens, t in batches)
    if not windows:
        assert targets == list(range(1001, 1001 + 7 * available))


@given(texts=st.lists(st.text("ab\n", min_size=1), min_size=1, max_size=4), held_out=st.floats(0.01, 0.99))
def test_splitting_loses_no_character_and_holds_out_the_end(texts, held_out):
    train, held = data.split(texts, held_out)
    assert "".join(train + held) == "".join(texts)
    total = sum(map(len, texts))
    cut = round(total * (1 - held_out))
    assert sum(map(len, train)) >= min(cut, total)
    assert all(train)
    assert all(held)


def test_the_held_out_part_begins_at_a_line():
    lines = [f"line {i}\n" for i in range(100)]
    train, held = data.split(["".join(lines)], 0.1)
    assert train[0].endswith("\n")
    assert held[0].startswith("line")
    assert 0.05 < len(held[0]) / sum(map(len, lines)) <= 0.1


def test_a_text_of_one_line_is_cut_within_it():
    assert data.split(["x" * 100], 0.1) == (["x" * 90], ["x" * 10])


def test_tokens_decode_to_the_text_and_lie_on_disk(tmp_path):
    text = "so many lines\n" * 20
    found = prepared(tmp_path, [text])
    assert TOKENIZER.decode([*found.train, *found.held_out]) == text
    assert isinstance(found.train, np.memmap)
    assert found.train.dtype == np.uint16
    assert found.token_bytes[found.train].sum() + found.token_bytes[found.held_out].sum() == len(text.encode())


def test_documents_are_separated_and_the_separator_counts_no_bytes(tmp_path):
    found = prepared(tmp_path, ["so\n", "many\n", "lines\n" * 3])
    tokens = [*found.train, *found.held_out]
    assert TOKENIZER.decode(tokens) == "so\n<|endoftext|>many\n<|endoftext|>" + "lines\n" * 3
    assert found.token_bytes[tokens].sum() == len("so\nmany\n" + "lines\n" * 3)


def test_a_text_may_spell_its_separators(tmp_path):
    found = prepared(tmp_path, ["so<|endoftext|>many lines\n" * 9])
    assert TOKENIZER.eos in found.train


def test_a_large_vocabulary_takes_32_bits(tmp_path):
    found = prepared(tmp_path, ["a𝄞" * 50], tokenizer=Wide())
    assert found.train.dtype == np.uint32
    assert found.train[:2].tolist() == [97, 0x1D11E]


def test_a_folder_is_read_in_the_order_of_its_names_without_hidden_files(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / ".git").mkdir()
    for name, text in (("b/2.txt", "third"), ("b/1.txt", "second"), ("a.txt", "first"), (".hidden", "no"), (".git/x", "no")):
        (tmp_path / name).write_text(text)
    (tmp_path / "empty.txt").touch()
    assert data.read_texts(tmp_path) == ["first", "second", "third"]


def test_line_endings_stay_as_they_are(tmp_path):
    (tmp_path / "dos.txt").write_bytes(b"one\r\ntwo\r\n")
    assert data.read_texts(tmp_path / "dos.txt") == ["one\r\ntwo\r\n"]


def test_text_that_will_not_do_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nothing does not exist; data.path must be a UTF-8 text file or a folder"):
        data.read_texts(tmp_path / "nothing")
    with pytest.raises(ValueError, match="holds no text in its 0 files"):
        data.read_texts(tmp_path)
    (tmp_path / "empty.txt").touch()
    with pytest.raises(ValueError, match=r"empty.txt is empty; training needs"):
        data.read_texts(tmp_path / "empty.txt")
    (tmp_path / "picture.txt").write_bytes(b"text\xff\xfe")
    with pytest.raises(ValueError, match=r"picture.txt is not UTF-8 text \(byte 4\)"):
        data.read_texts(tmp_path)


@pytest.mark.parametrize(("n_train", "n_held_out", "part"), [(7, 50, "training"), (50, 7, "held-out")])
def test_a_text_shorter_than_a_window_is_refused(n_train, n_held_out, part):
    data.check(corpus(8, 8), 7)
    with pytest.raises(ValueError, match=rf"the {part} text has 7 tokens; training.context=7 needs at least 8"):
        data.check(corpus(n_train, n_held_out), 7)


def test_files_that_do_not_belong_together_are_refused(tmp_path):
    prepared(tmp_path, ["so many lines\n" * 20])
    with pytest.raises(ValueError, match="was made with another tokenizer"):
        data.load(tmp_path, TOKENIZER, "other hash")
    about = json.loads((tmp_path / "tokens.json").read_text())
    (tmp_path / "tokens.bin").write_bytes((tmp_path / "tokens.bin").read_bytes()[:-2])
    with pytest.raises(ValueError, match=rf"tokens, tokens.json says {about['train'] + about['held_out']}"):
        data.load(tmp_path, TOKENIZER, "hash")
