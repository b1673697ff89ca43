"""Mistral's tekken.json."""

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.tokenizer import Tokenizer
from refllm.tokenizer.formats.tekken import OLD_SPECIAL
from refllm.tokenizer.words.patterns import O200K


def small(**changes):
    tokens = [*(bytes([i]) for i in range(256)), b"ab", b"abc", b"xy"]
    config = {"pattern": r"\S+|\s", "default_vocab_size": 288, "default_num_special_tokens": 30, "version": "v3"}
    config |= changes.pop("config", {})
    vocab = [{"rank": i, "token_bytes": base64.b64encode(t).decode(), "token_str": None} for i, t in enumerate(tokens)]
    return {"config": config, "vocab": vocab} | changes


def loaded(tmp_path, document):
    (tmp_path / "tekken.json").write_text(json.dumps(document), encoding="utf-8")
    return Tokenizer.load(tmp_path)


def test_ids_count_on_behind_the_special_tokens_and_the_vocabulary_is_cut(tmp_path):
    tokenizer = loaded(tmp_path, small())
    assert tokenizer.vocab_size == len(tokenizer) == 288
    assert tokenizer.encode("abc xy") == [30 + 257, 30 + 32, 30 + ord("x"), 30 + ord("y")]
    assert tokenizer.encode("<s>[INST]<SPECIAL_29>", allowed_special="all") == [1, 3, 29]
    assert (tokenizer.bos, tokenizer.eos, tokenizer.id_of("[TOOL_CONTENT]")) == (1, 2, len(OLD_SPECIAL) - 1)


def test_the_file_may_name_its_special_tokens(tmp_path):
    special = [{"rank": i, "token_str": name, "is_control": True} for i, name in enumerate(["<unk>", "<a>", "</s>"])]
    tokenizer = loaded(tmp_path, small(special_tokens=special, config={"version": "v13"}))
    assert tokenizer.encode("<a>", allowed_special="all") == [1]
    assert tokenizer.id_of("<SPECIAL_3>") == 3
    assert (tokenizer.bos, tokenizer.eos) == (None, 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vocab": []}, "it has 0 tokens; its config says 288, of them 30 special."),
        ({"config": {"default_vocab_size": 30}}, "it has 259 tokens; its config says 30, of them 30 special."),
        ({"config": {"default_vocab_size": 1 << 40}}, "config.default_vocab_size is 1099511627776; a whole number from 0 up"),
        ({"config": {"default_num_special_tokens": "x"}}, "config.default_num_special_tokens is 'x'; a whole number"),
        ({"config": {"version": "v13"}}, "it has no special_tokens, which version 'v13' needs; copy the file again."),
        ({"special_tokens": [{"rank": 1, "token_str": "<a>"}]}, "its special tokens do not count up from 0."),
        ({"special_tokens": [{"rank": 0, "token_str": None}]}, "its special_tokens are 1, not all with a text"),
        ({"vocab": [{"rank": 1, "token_bytes": "AA=="}] * 300}, "token 0 has the rank 1; ranks count up from 0."),
        ({"vocab": [1] * 300}, "is not built as a tekken.json (TypeError"),
        ({"vocab": [{"rank": 0, "token_bytes": "!"}] * 300}, "tekken.json: "),
        ({"config": {"pattern": 5}}, "tekken.json"),
    ],
)
def test_a_damaged_file_is_refused_in_one_sentence(tmp_path, change, message):
    with pytest.raises(ValueError, match="tekken.json") as error:
        loaded(tmp_path, small(**change))
    assert message in str(error.value)


@pytest.fixture(scope="module")
def tekken(packaged):
    """Mistral's own, and tiktoken with the same ranks and pattern."""
    import tiktoken

    path = packaged("tekken")
    document = json.loads(path.read_text(encoding="utf-8"))
    ranks = {base64.b64decode(entry["token_bytes"]): entry["rank"] for entry in document["vocab"][: 131072 - 1000]}
    pattern = document["config"]["pattern"]
    return Tokenizer.load(path), tiktoken.Encoding("tekken", pat_str=pattern, mergeable_ranks=ranks, special_tokens={})


@pytest.mark.oracle
@given(data=st.data())
def test_ids_are_tiktokens_behind_the_special_tokens(tekken, broken_text, data):
    ours, theirs = tekken
    text = data.draw(broken_text)
    assert ours.encode(text, disallowed_special=()) == [id + 1000 for id in theirs.encode_ordinary(text)]


@pytest.mark.oracle
def test_a_book_has_tiktokens_ids(tekken, topics):
    ours, theirs = tekken
    assert ours.encode(topics[:100_000]) == [id + 1000 for id in theirs.encode_ordinary(topics[:100_000])]
    assert ours.model.pattern != O200K  # numbers one by one, no contractions
