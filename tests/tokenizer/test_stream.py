"""Text from ids as they come."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.tokenizer import AddedToken, StreamDecoder, Tokenizer
from refllm.tokenizer.word_piece import WordPiece
from refllm.tokenizer.words.bert import BertRules


def stream(tokenizer, ids, **options):
    decoder = StreamDecoder(tokenizer, **options)
    return [*(decoder.push(id) for id in ids), decoder.finish()]


@given(st.lists(st.integers(0, 1023) | st.integers(0, 255) | st.just(1023), max_size=30))
def test_streamed_pieces_join_to_the_decoded_text(trained, ids):
    assert "".join(stream(trained, ids)) == trained.decode(ids)
    assert "".join(stream(trained, ids, skip_special=True)) == trained.decode(ids, skip_special=True)


@given(data=st.data())
def test_no_piece_of_a_text_holds_part_of_a_character(trained, hard_text, data):
    text = data.draw(hard_text).replace("\ufffd", "")
    pieces = stream(trained, trained.encode(text, disallowed_special=()))
    assert "".join(pieces) == text
    assert "\ufffd" not in "".join(pieces)
    assert pieces[-1] == ""


@given(ids=st.lists(st.integers(0, 5) | st.integers(0, 31999), max_size=9))
def test_special_tokens_are_left_out_of_a_stream_as_of_a_text(llama2, ids):
    for skip_special in (False, True):
        assert "".join(stream(llama2, ids, skip_special=skip_special)) == llama2.decode(ids, skip_special=skip_special)


@pytest.mark.parametrize("ids", [[2, 5, 6], [5, 2, 6], [2, 3, 6, 5], [1, 5]])
def test_special_tokens_that_are_words_are_left_out_with_their_spaces(ids):
    pieces = {5: "one", 6: "two", 7: "##s"}
    added = [AddedToken(1, "[UNK]", True), AddedToken(2, "[CLS]", True), AddedToken(3, "[SEP]", True)]
    tokenizer = Tokenizer(WordPiece(pieces, 1, BertRules()), added)
    assert "".join(stream(tokenizer, ids, skip_special=True)) == tokenizer.decode(ids, skip_special=True)
    assert "".join(stream(tokenizer, ids)) == tokenizer.decode(ids)


def byte_ids(trained, data):
    ids = {trained.bytes_of(id): id for id in range(256)}
    return [ids[bytes([byte])] for byte in data]


def test_the_bytes_of_an_unfinished_character_are_held_back(trained):
    assert stream(trained, byte_ids(trained, "é😀".encode())) == ["", "é", "", "", "", "😀", ""]


@pytest.mark.parametrize(
    ("data", "pieces"),
    [
        (b"\xff", ["\ufffd", ""]),
        (b"\xf0\x9f", ["", "", "\ufffd"]),
        (b"\xe0\x80", ["", "\ufffd\ufffd", ""]),
        (b"\xed\xa0\x80", ["", "", "\ufffd\ufffd\ufffd", ""]),  # a surrogate: Python waits for its third byte
        (b"\xc3a", ["", "\ufffda", ""]),
    ],
)
def test_bytes_that_are_no_utf8_become_replacement_characters(trained, data, pieces):
    assert stream(trained, byte_ids(trained, data)) == pieces


def test_a_finished_decoder_is_as_new(trained):
    decoder = StreamDecoder(trained)
    decoder.push(byte_ids(trained, b"\xf0")[0])
    assert decoder.finish() == "\ufffd"
    assert decoder.push(trained.encode("a")[0]) == "a"


@pytest.mark.oracle
@given(st.lists(st.integers(0, 50256) | st.integers(0, 255), max_size=12))
def test_any_ids_decode_as_in_tiktoken(gpt2, tiktoken_gpt2, ids):
    assert gpt2.decode(ids) == tiktoken_gpt2.decode(ids)
    assert "".join(stream(gpt2, ids)) == tiktoken_gpt2.decode(ids)
