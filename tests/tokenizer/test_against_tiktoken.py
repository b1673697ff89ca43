"""The ids of tiktoken's own vocabularies are tiktoken's, on any text."""

import inspect
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.tokenizer import Tokenizer, byte_level_bpe
from refllm.tokenizer.formats.ranks import ENCODINGS
from refllm.tokenizer.words import pretokenize

pytestmark = pytest.mark.oracle
NAMES = ["r50k_base", "p50k_base", "cl100k_base", "o200k_base"]
MODULES = [inspect, json, json.decoder, pytest]  # whose sources are code to encode
HARD = [
    "a" * 100_000,
    "ab " * 20_000,
    " " * 30_000 + "x\n" * 500 + "\t" * 700,
    "".join(chr(point) for point in range(0x2FFFF) if not 0xD800 <= point < 0xE000),
    "日本語のテキスト、間に空白がない。" * 1000,
    "한국어텍스트와 русский текст и emoji 👩‍👩‍👧🇩🇪👍🏽" * 500,
    "It's I'LL we'VE 12345 3.14159 \r\n\r\n  \n x\u0301\u0085y\u001cz" * 300,
    "0123456789abcdef" * 3000,
]


@pytest.fixture(scope="module", params=NAMES)
def both(request, rank_file, packaged):
    """A tokenizer of ours and tiktoken's of the same name."""
    import tiktoken

    name = request.param
    ours = Tokenizer.load(rank_file if name == "r50k_base" else packaged(name))
    ranks = {token: id for id, token in ours.model.vocabulary.items()}
    pattern, special = ENCODINGS[name]
    return ours, tiktoken.Encoding(name, pat_str=pattern, mergeable_ranks=ranks, special_tokens=special)


@given(data=st.data())
def test_short_texts_have_tiktokens_ids(both, broken_text, data):
    ours, theirs = both
    text = data.draw(broken_text)
    assert ours.encode(text, disallowed_special=()) == theirs.encode_ordinary(text)


@given(data=st.data())
def test_texts_encoded_by_arrays_have_tiktokens_ids(both, broken_text, data):
    ours, theirs = both
    text = data.draw(broken_text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(byte_level_bpe, "LONG", 1)
        patch.setattr(pretokenize, "CHUNK", 20)
        assert ours.encode(text, disallowed_special=()) == theirs.encode_ordinary(text)


@pytest.mark.parametrize("text", HARD, ids=range(len(HARD)))
def test_long_and_hard_texts_have_tiktokens_ids(both, text):
    ours, theirs = both
    ids = ours.encode(text)
    assert ids == theirs.encode_ordinary(text)
    assert ours.decode(ids) == text


def test_books_and_code_have_tiktokens_ids(both, data, topics):
    ours, theirs = both
    shakespeare = (data / "tinyshakespeare.txt").read_text()
    for text in (shakespeare[:300_000], topics[:200_000], "\n".join(map(inspect.getsource, MODULES))):
        assert ours.encode(text) == theirs.encode_ordinary(text)


def test_special_tokens_have_tiktokens_ids(both):
    ours, theirs = both
    text = "a".join(ours.special_tokens) + "b"
    assert ours.encode(text, allowed_special="all") == theirs.encode(text, allowed_special="all")


def test_every_name_has_the_pattern_and_the_special_tokens_that_tiktoken_gives_it(monkeypatch):
    from tiktoken_ext import openai_public

    monkeypatch.setattr(openai_public, "load_tiktoken_bpe", lambda *_, **__: {})
    for name, (pattern, special) in ENCODINGS.items():
        public = openai_public.ENCODING_CONSTRUCTORS[name]()
        again = {"<|reserved_200018|>": 200018} if name == "o200k_harmony" else {}  # a second name of one id
        assert (pattern, special | again) == (public["pat_str"], public["special_tokens"])
