"""Byte-level BPE in a tokenizer.json, with patterns other than GPT-2's."""

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.tokenizer import AddedToken, Tokenizer
from refllm.tokenizer.byte_level_bpe import ByteLevelBPE
from refllm.tokenizer.byte_pair import Merge
from refllm.tokenizer.formats.hugging_face import to_document
from refllm.tokenizer.formats.hugging_face_byte_level import describe_pre_tokenizer, read_pre_tokenizer
from refllm.tokenizer.pre_split import PreSplit
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


BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
PLAIN = BYTE_LEVEL | {"use_regex": False}


def regex(pattern, behavior="Isolated", invert=False):
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": behavior, "invert": invert}


PRE_TOKENIZERS = {
    "RoBERTa with a space": [BYTE_LEVEL | {"add_prefix_space": True}],
    "no words": [PLAIN],
    "StarCoder": [{"type": "Digits", "individual_digits": True}, BYTE_LEVEL],
    "digits together": [{"type": "Digits", "individual_digits": False}, BYTE_LEVEL | {"add_prefix_space": True}],
    "Qwen 2": [regex(LLAMA3.replace("{1,3}", "")), PLAIN],
    "DeepSeek": [regex(r"\p{N}{1,3}"), regex("[一-龥぀-ゟ゠-ヿ]+"), regex(r" ?\p{L}+|\s+(?!\S)|\s+"), PLAIN],
    "punctuation": [{"type": "Punctuation", "behavior": "Contiguous"}, BYTE_LEVEL],
    "each sign": [{"type": "Punctuation", "behavior": "Isolated"}, PLAIN],
    "signs joined": [{"type": "Punctuation", "behavior": "MergedWithPrevious"}, BYTE_LEVEL],
    "whitespace dropped": [{"type": "WhitespaceSplit"}, BYTE_LEVEL | {"add_prefix_space": True}],
    "words and signs": [{"type": "Whitespace"}, BYTE_LEVEL],
    "one character dropped": [{"type": "CharDelimiterSplit", "delimiter": "e"}, BYTE_LEVEL],
    "a text": [{"type": "Split", "pattern": {"String": "the"}, "behavior": "MergedWithNext", "invert": False}, BYTE_LEVEL],
    "nested": [{"type": "Sequence", "pretokenizers": [regex(r"\s+", "Removed", True), regex("a", "Contiguous")]}, BYTE_LEVEL],
}
LOADED = {}


@pytest.mark.oracle
@pytest.mark.parametrize("name", PRE_TOKENIZERS)
@given(data=st.data())
def test_every_pre_tokenizer_gives_the_ids_of_tokenizers_and_is_written_back(trained, tmp_path_factory, name, hard_text, data):
    import tokenizers

    if name not in LOADED:
        path = tmp_path_factory.mktemp("kinds") / "tokenizer.json"
        parts = {"pre_tokenizer": {"type": "Sequence", "pretokenizers": PRE_TOKENIZERS[name]}}
        parts["normalizer"] = {
            "type": "Sequence",
            "normalizers": [{"type": "NFC"}, {"type": "Strip", "strip_left": True, "strip_right": False}],
        }
        path.write_text(json.dumps(to_document(trained) | parts), encoding="utf-8")
        ours, theirs = Tokenizer.load(path), tokenizers.Tokenizer.from_file(str(path))
        ours.save(path)
        LOADED[name] = ours, theirs, Tokenizer.load(path), tokenizers.Tokenizer.from_file(str(path))
    ours, theirs, again, written = LOADED[name]
    text = (
        known_to_all(data.draw(hard_text)).replace("\u0301", "").replace("ि", "")
    )  # marks that compose have other spans in tokenizers
    expected = theirs.encode(text)
    assert ours.encode_with_offsets(text, allowed_special="all") == (expected.ids, expected.offsets)
    assert ours.encode(text, allowed_special="all") == expected.ids
    assert again.encode(text, allowed_special="all") == written.encode(text).ids == expected.ids


@pytest.mark.parametrize("name", PRE_TOKENIZERS)
def test_every_pre_tokenizer_is_read_back_as_it_was_written(trained, name):
    splits, patterns, space = read_pre_tokenizer({"type": "Sequence", "pretokenizers": PRE_TOKENIZERS[name]})
    model = ByteLevelBPE(trained.model.vocabulary, trained.model.merges, patterns)
    described = describe_pre_tokenizer(PreSplit(model, splits, space))
    assert read_pre_tokenizer(described) == (splits, patterns, space)


def test_an_added_token_spelled_like_another_is_refused(trained):
    with pytest.raises(ValueError, match=r"^a tokenizer\.json cannot hold the added token 'Ġthe': token \d+ is spelled so\.$"):
        to_document(Tokenizer(trained.model, [AddedToken(2000, "Ġthe", True)]))


@pytest.mark.oracle
@pytest.mark.parametrize("name", ["claude", "deepseek"])
@given(data=st.data())
def test_real_files_give_the_ids_of_tokenizers(packaged, name, hard_text, data):
    ours, theirs = real(packaged, name)
    text = known_to_all(data.draw(hard_text))
    assert ours.encode(text, allowed_special="all") == theirs.encode(text, add_special_tokens=False).ids


@pytest.mark.oracle
@pytest.mark.parametrize("name", ["claude", "deepseek"])
def test_real_files_give_a_books_ids_and_spans(packaged, name, topics):
    ours, theirs = real(packaged, name)
    text = topics[:20_000] + " 中文文字かな ﬁ １２３４ 12345 😀"
    encoded = theirs.encode(text, add_special_tokens=False)
    assert ours.encode_with_offsets(text) == (encoded.ids, encoded.offsets)


def real(packaged, name):
    import tokenizers

    if name not in LOADED:
        LOADED[name] = Tokenizer.load(packaged(name)), tokenizers.Tokenizer.from_file(str(packaged(name)))
    return LOADED[name]


def known_to_all(text):
    """The characters of the oldest Unicode that Python has, 3.2: every later one normalizes them alike."""
    return "".join(character for character in text if unicodedata.ucd_3_2_0.category(character) != "Cn")
