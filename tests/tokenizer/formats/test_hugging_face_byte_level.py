"""Byte-level BPE in a tokenizer.json, with patterns other than GPT-2's."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.tokenizer import Tokenizer
from refllm.tokenizer.byte_level_bpe import ByteLevelBPE
from refllm.tokenizer.byte_pair import Merge
from refllm.tokenizer.rank_merges import RankMerges
from refllm.tokenizer.words.patterns import CL100K, GPT2, LLAMA3, O200K

PATTERNS = {"gpt2": GPT2, "cl100k": CL100K, "o200k": O200K, "llama3": LLAMA3}


@pytest.fixture(scope="module", params=PATTERNS)
def saved(request, trained, tmp_path_factory):
    """A tokenizer with one of the patterns, and its file."""
    model = ByteLevelBPE(trained.model.vocabulary, trained.model.merges, PATTERNS[request.param])
    path = tmp_path_factory.mktemp(request.param) / "tokenizer.json"
    tokenizer = Tokenizer(model, trained.added)
    tokenizer.save(path)
    return tokenizer, path


def test_the_pattern_is_read_back(saved):
    tokenizer, path = saved
    assert Tokenizer.load(path).model.pattern == tokenizer.model.pattern
    assert Tokenizer.load(path).encode("It's 12345\n\n x") == tokenizer.encode("It's 12345\n\n x")


def test_ranks_are_saved_as_merges(gpt2, tmp_path):
    vocabulary = {id: token for id, token in gpt2.model.vocabulary.items() if id < 3256}
    Tokenizer(ByteLevelBPE(vocabulary, RankMerges(vocabulary), whole_words=True)).save(tmp_path)
    again = Tokenizer.load(tmp_path)
    assert again.model.pairs() == gpt2.model.pairs()[:3000]
    assert again.model.whole_words


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda parts: parts[0].update(behavior="Lost"), "pre_tokenizer.behavior is 'Lost'; what is read here is 'Isolated' or"),
        (lambda parts: parts[0].update(type="Metaspace"), "pre_tokenizer.type is 'Metaspace'; what is read here is 'Split' or"),
        (lambda parts: parts[0].update(pattern={"X": " "}), "pre_tokenizer.pattern is ['X']; what is read here is ['Regex'] or"),
        (lambda parts: parts[0].update(pattern={"String": ""}), "pre_tokenizer.pattern is ''; what is read here is a pattern"),
        (lambda parts: parts[0].update(pattern={"Regex": r"\1"}), "the pattern '\\\\1'"),
        (
            lambda parts: parts.insert(0, parts.pop()),
            "the last part of pre_tokenizer is 'Split'; what is read here is 'ByteLevel'.",
        ),
        (lambda parts: parts.insert(0, parts[1]), "pre_tokenizer.type is 'ByteLevel'; what is read here is 'Split' or"),
        (lambda parts: parts[0].update(pattern={"Regex": r"\p{N}{1,3}+"}), "has {1,3}+, which is not read here."),
        (lambda parts: parts.clear(), "the last part of pre_tokenizer is None; what is read here is 'ByteLevel'."),
    ],
)
def test_a_pre_tokenizer_that_is_not_known_is_named(trained, tmp_path, change, message):
    Tokenizer(ByteLevelBPE(trained.model.vocabulary, trained.model.merges, LLAMA3)).save(tmp_path)
    document = json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))
    change(document["pre_tokenizer"]["pretokenizers"])
    (tmp_path / "tokenizer.json").write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(ValueError, match="tokenizer.json") as error:
        Tokenizer.load(tmp_path)
    assert message in str(error.value)


def test_a_pattern_that_means_something_else_in_the_file_is_refused(trained, tmp_path):
    model = ByteLevelBPE(trained.model.vocabulary, trained.model.merges, r"\p{L}{1,2}+|.")
    with pytest.raises(ValueError, match=r"has \{1,2\}\+, which means something else in a tokenizer\.json\.$"):
        Tokenizer(model).save(tmp_path)


@pytest.mark.oracle
@pytest.mark.parametrize("name", PATTERNS)
def test_digits_have_the_same_ids_in_tokenizers(name, trained, tmp_path):
    import tokenizers

    merges = {(trained.model._byte_ids[ord("0")], trained.model._byte_ids[ord("1")]): Merge(0, 256)}
    vocabulary = {id: token for id, token in trained.model.vocabulary.items() if id < 256} | {256: b"01"}
    tokenizer = Tokenizer(ByteLevelBPE(vocabulary, merges, PATTERNS[name]))
    tokenizer.save(tmp_path)
    theirs = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert theirs.encode("0101010 01001").ids == tokenizer.encode("0101010 01001")


@pytest.mark.oracle
@given(data=st.data())
def test_the_file_gives_the_same_ids_in_tokenizers(saved, hard_text, data):
    import tokenizers

    tokenizer, path = saved
    if path not in LOADED:
        LOADED[path] = tokenizers.Tokenizer.from_file(str(path))
    text = data.draw(hard_text)
    assert LOADED[path].encode(text).ids == tokenizer.encode(text, allowed_special="all")


LOADED = {}
