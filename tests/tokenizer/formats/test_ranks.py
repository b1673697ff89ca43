"""tiktoken's rank files."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.tokenizer import Tokenizer
from refllm.tokenizer.formats.ranks import ENCODINGS
from refllm.tokenizer.words.patterns import CL100K, GPT2, LLAMA3, O200K


@pytest.fixture(scope="module")
def ranked(rank_file):
    return Tokenizer.load(rank_file)


@given(data=st.data())
def test_the_ranks_of_gpt2_give_its_ids(ranked, gpt2, hard_text, data):
    text = data.draw(hard_text)
    assert ranked.encode(text, allowed_special="all") == gpt2.encode(text, allowed_special="all")
    assert ranked.decode(ranked.encode(text, allowed_special="all")) == text


def test_the_name_says_the_pattern_and_the_special_tokens(ranked, rank_file, tmp_path):
    assert (ranked.model.pattern, ranked.eos, ranked.vocab_size) == (GPT2, 50256, 50257)
    for name, (pattern, special) in ENCODINGS.items():
        (tmp_path / f"{name}.tiktoken").write_bytes(rank_file.read_bytes())
        tokenizer = Tokenizer.load(tmp_path / f"{name}.tiktoken")
        assert tokenizer.model.pattern == pattern
        assert tokenizer.special_tokens == special.keys()


def test_another_name_needs_a_pattern(rank_file, tmp_path, ranked):
    path = tmp_path / "tokenizer.model"
    path.write_bytes(rank_file.read_bytes())
    with pytest.raises(
        ValueError, match=r"tokenizer\.model: a rank file's name says how it cuts text, one of r50k_base, .*; or pass"
    ):
        Tokenizer.load(path)
    assert Tokenizer.load(path, pattern=GPT2).encode("it's 12345") == ranked.encode("it's 12345")
    assert Tokenizer.load(path, pattern=LLAMA3).encode("12345") == [*ranked.encode("123"), *ranked.encode("45")]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            b"IQ== 0\n!!!! 1\n",
            r"r50k_base\.tiktoken, line 2: b'!!!! 1' is not a token in base64 and its rank; copy the file again\.",
        ),
        (b"IQ== 0\nIg==\n", r"r50k_base\.tiktoken, line 2: b'Ig==' is not a token in base64 and its rank"),
        (b"IQ== 0 Ig== 1\n", r"r50k_base\.tiktoken, line 1: b'IQ== 0 Ig== 1' is not a token in base64 and its rank"),
        (b"IQ==\n0\nIg==\n1\n", r"r50k_base\.tiktoken, line 1: b'IQ==' is not a token in base64 and its rank"),
        (b"IQ== 0\nIg== -1\n", r"r50k_base\.tiktoken, line 2: b'Ig== -1' is not a token in base64 and its rank"),
        (b"IQ== 0\nIg== 0\n", r"r50k_base\.tiktoken, line 2: rank 0 is given twice\."),
        (b"IQ== 0\n", r"r50k_base\.tiktoken: the vocabulary lacks 255 of the 256 bytes, such as 0x00; it needs all\."),
        (b"", r"r50k_base\.tiktoken: the vocabulary lacks 256 of the 256 bytes"),
    ],
)
def test_a_damaged_file_is_refused_in_one_sentence(tmp_path, content, message):
    (tmp_path / "r50k_base.tiktoken").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        Tokenizer.load(tmp_path / "r50k_base.tiktoken")


@given(cut=st.integers(0, 836_000))
def test_a_truncated_file_is_refused_or_lacks_tokens(rank_file, tmp_path_factory, cut):
    path = tmp_path_factory.getbasetemp() / "p50k_base.tiktoken"
    path.write_bytes(rank_file.read_bytes()[: cut // 200])
    refusal = None
    try:
        Tokenizer.load(path)
    except ValueError as error:
        refusal = str(error)
    assert refusal is None or refusal.startswith(str(path))


@pytest.mark.oracle
@pytest.mark.parametrize("pattern", [CL100K, O200K, LLAMA3], ids=["cl100k", "o200k", "llama3"])
@given(data=st.data())
def test_other_patterns_give_tiktokens_ids(rank_file, in_tiktoken, broken_text, pattern, data):
    text = data.draw(broken_text)
    ours, theirs = loaded(rank_file, pattern, in_tiktoken)
    assert ours.encode(text, disallowed_special=()) == theirs.encode_ordinary(text)


@pytest.mark.oracle
@pytest.mark.parametrize("pattern", [CL100K, O200K], ids=["cl100k", "o200k"])
def test_a_book_has_tiktokens_ids(rank_file, in_tiktoken, topics, pattern):
    ours, theirs = loaded(rank_file, pattern, in_tiktoken)
    assert ours.encode_array(topics[:200_000]).tolist() == theirs.encode_ordinary(topics[:200_000])


LOADED = {}


def loaded(rank_file, pattern, in_tiktoken):
    if pattern not in LOADED:
        LOADED[pattern] = Tokenizer.load(rank_file, pattern=pattern), in_tiktoken(pattern)
    return LOADED[pattern]
