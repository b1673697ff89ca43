"""Text for small models."""

import numpy as np
import pytest

from refllm.lab.materials import corpus


def decoded(text, ids):
    return "".join(text.symbols[i] for i in ids)


def test_documents_stand_whole_in_one_part(tmp_path):
    documents = [f"<{i}>{'abcdefgh'[i] * (20 + i)}" for i in range(8)]
    for i, document in enumerate(documents):
        (tmp_path / f"{i}.txt").write_text(document)
    text = corpus.load(tmp_path, held_out=0.3)
    train, rest = decoded(text, text.train), decoded(text, text.held_out)
    assert sorted(f"<{d}" for d in (train + rest).split("<")[1:]) == sorted(documents)
    assert 0.3 * len(train + rest) <= len(rest) <= 0.3 * len(train + rest) + max(map(len, documents))
    assert decoded(corpus.load(tmp_path, held_out=0.3), text.train) == train
    assert decoded(text, corpus.load(tmp_path, held_out=0.3, seed=1).train) != train


def test_one_document_is_cut_at_lines(tmp_path):
    lines = [f"line {i}\n" for i in range(500)]
    (tmp_path / "text.txt").write_text("".join(lines))
    text = corpus.load(tmp_path / "text.txt")
    assert sorted((decoded(text, text.train) + decoded(text, text.held_out)).splitlines(keepends=True)) == sorted(lines)
    assert len(text.held_out) > 0


def test_bytes_are_the_texts_own(tmp_path):
    (tmp_path / "a").write_text("äöü" * 9)
    (tmp_path / "b").write_text("日本語" * 9)
    text = corpus.load(tmp_path, as_bytes=True, held_out=0.4)
    assert text.vocab_size == 256
    assert {bytes(text.train).decode(), bytes(text.held_out).decode()} == {"äöü" * 9, "日本語" * 9}


def test_too_many_characters_ask_for_bytes(tmp_path):
    for name, first in (("a", 0x4E00), ("b", 0x5000)):
        (tmp_path / name).write_text("".join(map(chr, range(first, first + 200))))
    with pytest.raises(ValueError, match="has 400 different characters, and at most 256 can be ids here; read it as bytes"):
        corpus.load(tmp_path, held_out=0.4)


def test_too_little_text_is_refused(tmp_path):
    (tmp_path / "a").write_text("x")
    with pytest.raises(ValueError, match="has 1 characters, too few"):
        corpus.load(tmp_path / "a")


def test_windows_are_tokens_and_their_successors():
    ids = np.arange(100, dtype=np.uint8)
    tokens, targets = corpus.evaluation(ids, count=4, context=10)
    np.testing.assert_array_equal(targets, tokens + 1)
    assert tokens[:, 0].tolist() == [0, 20, 40, 60]
    assert tokens.dtype == np.int32
    drawn, _ = corpus.batch(ids, 0, 5, batch=50, context=98)
    assert set(drawn[:, 0].tolist()) == {0, 1}


def test_the_standard_library_is_ascii_and_large():
    text = corpus.load()
    assert text.vocab_size <= 100
    assert len(text.train) > 5_000_000
    symbols = np.frombuffer(text.symbols.encode(), dtype=np.uint8)
    for ids in (text.train, text.held_out):
        content = symbols[ids].tobytes()
        assert b"Python Character Mapping Codec" not in content  # a table of `encodings`
        assert b"import " in content


def test_the_standard_library_is_read_once_and_nobody_changes_it():
    text = corpus.load()
    assert corpus.load() is text
    with pytest.raises(ValueError, match="read-only"):
        text.train[0] = 0
    with pytest.raises(ValueError, match="read-only"):
        text.held_out[0] = 0
