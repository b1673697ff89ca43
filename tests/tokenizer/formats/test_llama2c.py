"""llama2.c's tokenizer.bin."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def stories(data):
    return Tokenizer.load(data / "tok512.bin")


def test_the_tokenizer_of_stories260k_is_read(stories):
    assert (stories.vocab_size, stories.bos, stories.eos) == (512, 1, 2)
    assert stories.special_tokens == {"<unk>", "<s>", "</s>"}
    assert stories.encode("Once upon a time") == [403, 407, 261, 378]
    assert [stories.bytes_of(id) for id in (403, 407, 261, 378)] == [b" Once", b" upon", b" a", b" time"]


@given(draw=st.data())
def test_every_text_comes_back(stories, hard_text, draw):
    text = draw.draw(hard_text)
    assert stories.decode(stories.encode(text, disallowed_special=())) == text.replace("\u2581", " ")


@given(st.integers(0, 6226))
def test_a_truncated_file_is_refused_by_name_or_ends_with_a_piece(data, tmp_path_factory, length):
    path = tmp_path_factory.getbasetemp() / "cut.bin"
    path.write_bytes((data / "tok512.bin").read_bytes()[:length])
    refusal = None
    try:
        n_pieces = Tokenizer.load(path).vocab_size
    except ValueError as error:
        refusal = str(error)
    if refusal is None:
        assert 259 <= n_pieces < 512
    else:
        assert refusal.startswith(str(path))


def test_a_file_of_another_kind_is_refused_in_one_sentence(data, tmp_path):
    (tmp_path / "tokenizer.bin").write_bytes((data / "stories260K.bin").read_bytes())
    with pytest.raises(
        ValueError, match=r"tokenizer\.bin is not a whole tokenizer\.bin of llama2\.c \(.*\); it may be truncated\."
    ):
        Tokenizer.load(tmp_path)
