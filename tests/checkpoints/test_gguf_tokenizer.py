"""Tokenizers in GGUF metadata: the same ids as the same vocabulary in its own format, and what is not known is told."""

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.checkpoints.gguf_tokenizer import read_tokenizer
from refllm.tokenizer import Tokenizer
from refllm.tokenizer.byte_level import to_characters
from refllm.tokenizer.formats.sentence_piece_model import read_message

texts = st.one_of(
    st.text(max_size=40), st.lists(st.sampled_from(["the", " ", "  ", "Once", "é", "\n", "12", "<s>"])).map("".join)
)


def metadata(**fields):
    return {f"tokenizer.ggml.{name}": value for name, value in fields.items()}


@pytest.fixture(scope="module")
def llama2(data):
    """Llama 2's vocabulary from SentencePiece's own file, as a converter copies it."""
    pieces = [read_message(entry) for entry in read_message((data / "llama2-tokenizer.model").read_bytes())[1]]
    return metadata(
        model="llama",
        tokens=[piece[1][0].decode() for piece in pieces],
        scores=np.asarray([struct.unpack("<f", piece[2][0])[0] for piece in pieces], np.float32),
        token_type=np.asarray([piece[3][0] if 3 in piece else 1 for piece in pieces], np.int32),
        bos_token_id=1,
        eos_token_id=2,
    )


@pytest.fixture(scope="module")
def from_sentence_piece(data):
    return Tokenizer.load(data / "llama2-tokenizer.model")


@pytest.fixture(scope="module")
def from_gguf(llama2, tmp_path_factory):
    return read_tokenizer(llama2, tmp_path_factory.getbasetemp())


@given(text=texts)
def test_llamas_vocabulary_gives_the_ids_of_its_own_file(from_gguf, from_sentence_piece, text):
    ids = from_sentence_piece.encode(text, disallowed_special=())
    assert from_gguf.encode(text, disallowed_special=()) == ids
    assert from_gguf.decode(ids) == from_sentence_piece.decode(ids)


def test_llamas_ends_are_put_around_as_the_fields_say(from_gguf, llama2, tmp_path):
    assert (from_gguf.bos, from_gguf.eos) == (1, 2)
    assert from_gguf.with_special_tokens([5]) == [1, 5]
    other = read_tokenizer(llama2 | metadata(add_bos_token=False, add_eos_token=True, add_space_prefix=False), tmp_path)
    assert other.with_special_tokens([5]) == [5, 2]
    assert other.encode("a") != from_gguf.encode("a")
    assert other.decode(other.encode("a")) == "a"


@pytest.fixture(scope="module")
def gpt2(data):
    """GPT-2's vocabulary from OpenAI's own files, <|endoftext|> among its tokens as one that is never found in a text."""
    tokenizer = Tokenizer.load(data / "gpt2-encoder.json", data / "gpt2-vocab.bpe")
    tokens = [to_characters(tokenizer.bytes_of(id)) if id < 50_256 else "<|endoftext|>" for id in range(50_257)]
    merges = [line for line in (data / "gpt2-vocab.bpe").read_text().splitlines()[1:] if line]
    ends = {"bos_token_id": 50_256, "eos_token_id": 50_256}
    return metadata(model="gpt2", pre="gpt-2", tokens=tokens, token_type=[1] * 50_256 + [3], merges=merges, **ends), tokenizer


@pytest.fixture(scope="module")
def gpt2_from_gguf(gpt2, tmp_path_factory):
    return read_tokenizer(gpt2[0], tmp_path_factory.getbasetemp())


@given(text=texts)
def test_gpt2s_vocabulary_gives_the_ids_of_its_own_files(gpt2, gpt2_from_gguf, text):
    ids = gpt2[1].encode(text, disallowed_special=())
    assert gpt2_from_gguf.encode(text, disallowed_special=()) == ids
    assert gpt2_from_gguf.decode(ids) == gpt2[1].decode(ids)


def test_gpt2s_end_is_special_and_nothing_is_put_around(gpt2_from_gguf):
    assert gpt2_from_gguf.encode("<|endoftext|>", allowed_special="all") == [50_256]
    assert (gpt2_from_gguf.bos, gpt2_from_gguf.eos) == (50_256, 50_256)
    assert gpt2_from_gguf.with_special_tokens([5]) == [5]


BYTES = [to_characters(bytes([byte])) for byte in range(256)]


@pytest.mark.parametrize(
    ("pre", "text", "words"),
    [
        ("gpt-2", "ab12345", [b"ab", b"12345"]),
        ("llama-bpe", "ab12345", [b"ab", b"123", b"45"]),
        ("qwen2", "ab12", [b"ab", b"1", b"2"]),
        ("smollm", "ab12", [b"ab", b"1", b"2"]),
    ],
)
def test_the_name_of_the_pattern_decides_how_text_is_cut(tmp_path, pre, text, words):
    joined = [word for word in ("ab", "12", "123", "45", "12345", "b1") if word]
    tokens = [*BYTES, *joined, "ba", "<|im_end|>", "<tool>"]
    merges = ["a b", "1 2", "12 3", "4 5", "123 45", "b 1"]
    given_fields = metadata(model="gpt2", pre=pre, tokens=tokens, merges=merges, eos_token_id=263)
    tokenizer = read_tokenizer(given_fields | metadata(token_type=[1] * 263 + [3, 4]), tmp_path)
    assert tokenizer.tokens(tokenizer.encode(text)) == words
    assert tokenizer.encode("<tool>") == [264]
    assert tokenizer.encode("<|im_end|>", allowed_special="all") == [263]
    assert tokenizer.tokens(tokenizer.encode("ba")) == ([b"ba"] if pre == "llama-bpe" else [b"b", b"a"])  # no merge makes it
    composed = tokenizer.encode("e\u0301") == tokenizer.encode("\u00e9")
    assert composed == (pre == "qwen2")  # whose makers compose accents first


SMALL = metadata(
    model="llama",
    tokens=["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), "\u2581", "a", "\u2581a"],
    scores=[0.0] * 257 + [-1.0, -2.0, -3.0],
    token_type=[2] + [6] * 256 + [1] * 3,
)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"model": "bert"}, "tokenizer.ggml.model is 'bert'; 'llama' and 'gpt2' can be read."),
        ({"model": 3}, "tokenizer.ggml.model is a int; it must be str."),
        ({"tokens": "abc"}, "tokenizer.ggml.tokens is not the list of str values that it must be."),
        ({"tokens": np.arange(3)}, "tokenizer.ggml.tokens is not the list of str values that it must be."),
        ({"tokens": ["a" * 1025]}, "tokenizer.ggml.token_type is not the list of 1 int values"),
        ({"tokens": ["a" * 1025] * 260}, "tokenizer.ggml.tokens has one of 1025 characters; at most 1024 are read."),
        ({"scores": [0.0]}, "tokenizer.ggml.scores is not the list of 260 float values that it must be."),
        ({"token_type": [6] * 260}, "260 tokens are bytes, but only 256 are spelled as <0x00> to <0xFF>."),
        ({"bos_token_id": 999}, "the template puts id 999 around a text, which is not in the vocabulary"),
        ({"bos_token_id": "1"}, "tokenizer.ggml.bos_token_id is a str; it must be int."),
        ({"model": "gpt2"}, "tokenizer.ggml.merges is not the list of str values that it must be."),
        ({"model": "gpt2", "pre": "morse"}, "tokenizer.ggml.pre is 'morse', a way to cut words that is not known; gpt-2, "),
        ({"model": "gpt2", "merges": ["a c"]}, "the merge 'a c' is not of two tokens."),
        ({"model": "gpt2", "merges": ["ac"]}, "the merge 'ac' is not of two tokens."),
    ],
)
def test_a_tokenizer_that_cannot_be_read_is_told_in_a_warning(tmp_path, change, sentence):
    with pytest.warns(UserWarning, match="is loaded without its tokenizer: ") as told:
        assert read_tokenizer(SMALL | metadata(**change), tmp_path / "x.gguf") is None
    assert sentence in str(told[0].message)
    assert "x.gguf" in str(told[0].message)


def test_a_file_without_a_tokenizer_has_none(tmp_path):
    assert read_tokenizer({}, tmp_path) is None
    assert read_tokenizer(SMALL, tmp_path).encode("a") == [259]
