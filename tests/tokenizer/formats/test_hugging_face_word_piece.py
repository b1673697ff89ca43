"""BERT's WordPiece in a tokenizer.json."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.tokenizer import AddedToken, Tokenizer
from refllm.tokenizer.formats.hugging_face_word_piece import AS_IT_STANDS, describe, read, read_rules
from refllm.tokenizer.sentence_pair import sentence_pair
from refllm.tokenizer.template import Template
from refllm.tokenizer.word_piece import WordPiece
from refllm.tokenizer.words.bert import CASED, UNCASED, BertRules

SPECIAL = {"[UNK]": 100, "[CLS]": 101, "[SEP]": 102}
ADDED = [AddedToken(id, name, special=True) for name, id in SPECIAL.items()]
PIECES = dict(enumerate(["the", "THE", "s", "##s", "##ing", "a", "##t", "中", "!", "é", "e", "##́", "'", "hell", "##o"]))


def small(rules=UNCASED, **options):
    return WordPiece(PIECES, 100, rules, **options)


def document(**changes):
    """A tokenizer.json; changes: by field, "model.x" for the field x of the model."""
    whole = describe(small(), SPECIAL.items())
    for field, value in changes.items():
        part, _, name = field.rpartition("__")
        (whole[part] if part else whole)[name] = value
    return whole


@pytest.mark.parametrize("rules", [UNCASED, CASED, AS_IT_STANDS, BertRules(strip_accents=False)], ids=str)
@pytest.mark.parametrize("options", [{}, {"continuing": "@@", "longest_word": 3, "cleanup": False}], ids=["usual", "unusual"])
def test_what_is_described_is_read_again(rules, options):
    model = small(rules, **options)
    again = read(json.loads(json.dumps(describe(model, SPECIAL.items()))), SPECIAL)
    for name in ("pieces", "unknown", "rules", "continuing", "longest_word", "cleanup", "vocabulary"):
        assert getattr(again, name) == getattr(model, name), name


def test_the_unknown_piece_need_not_be_an_added_token():
    model = read(document(model__vocab={"a": 0, "<unk>": 1}, model__unk_token="<unk>"), {})
    assert model.encode("a b") == [0, 1]


def test_without_a_normalizer_text_is_cut_as_it_stands():
    assert read_rules(None) == AS_IT_STANDS
    assert read_rules({"type": "BertNormalizer", "lowercase": False}) == CASED


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model__type": "WordLevel"}, r"^model\.type is 'WordLevel'; what is read here is 'WordPiece'\.$"),
        ({"normalizer": {"type": "NFC"}}, r"^normalizer\.type is 'NFC'; what is read here is 'BertNormalizer'\.$"),
        ({"normalizer__lowercase": None}, r"^normalizer\.lowercase is None; what is read here is True or False\.$"),
        ({"normalizer__strip_accents": "yes"}, r"^normalizer\.strip_accents is 'yes'"),
        ({"pre_tokenizer": {"type": "Whitespace"}}, r"^pre_tokenizer\.type is 'Whitespace'"),
        ({"pre_tokenizer": None}, r"^pre_tokenizer\.type is None"),
        ({"decoder": {"type": "ByteLevel"}}, r"^decoder\.type is 'ByteLevel'"),
        ({"decoder__prefix": "@@"}, r"^decoder\.prefix is '@@'; what is read here is '##'\.$"),
        ({"model__max_input_chars_per_word": "many"}, r"^model\.max_input_chars_per_word is 'many'; a number of characters"),
        ({"model__continuing_subword_prefix": None}, r"^model\.continuing_subword_prefix is None; a text is needed\.$"),
        ({"model__unk_token": "<unk>"}, r"^model\.unk_token is '<unk>', which is not in the vocabulary\.$"),
        ({"model__vocab": {"a": 0, "b": 0}}, r"^two tokens of the vocabulary share an id\.$"),
        ({"model__vocab": {"a": "0"}}, r"^an id of the vocabulary is not a whole number"),
    ],
)
def test_a_part_that_is_not_known_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        read(document(**changes), SPECIAL)


def test_a_saved_tokenizer_is_opened_again(tmp_path):
    tokenizer = Tokenizer(small(CASED), ADDED, 101, 102, template=Template((101,), (102,)))
    tokenizer.save(tmp_path)
    again = Tokenizer.load(tmp_path)
    assert again.model.rules == CASED
    assert (again.added, again.bos, again.eos) == (tokenizer.added, 101, 102)
    text = "the THE hello, is!"
    assert again.encode(text) == tokenizer.encode(text)
    assert sentence_pair(again, text, "a") == sentence_pair(tokenizer, text, "a")


def test_a_normalized_added_token_is_found_in_normalized_text(tmp_path):
    added = [*ADDED, AddedToken(103, "NewTok", special=False, normalized=True), AddedToken(104, "Asis", special=False)]
    Tokenizer(small(), added).save(tmp_path)
    tokenizer = Tokenizer.load(tmp_path)
    assert tokenizer.encode_with_offsets("a n\u00e9wTOK a Asis asis") == (
        [5, 103, 5, 104, 100],
        [(0, 1), (2, 8), (9, 10), (11, 15), (16, 20)],
    )


# Against Hugging Face's tokenizers


@pytest.fixture(scope="module")
def bert(packaged):
    """BERT's own tokenizer.json."""
    return Tokenizer.load(packaged("bert") / "tokenizer.json")


@pytest.fixture(scope="module", params=["tokenizer.json", "vocab.txt"])
def saved(request, packaged, tmp_path_factory):
    """BERT's tokenizer from either file, saved, in tokenizers."""
    from tokenizers import Tokenizer as Reference

    folder = tmp_path_factory.mktemp("saved")
    Tokenizer.load(packaged("bert") / request.param).save(folder)
    return Reference.from_file(str(folder / "tokenizer.json"))


@pytest.mark.oracle
@given(draw=st.data())
def test_the_saved_file_gives_the_same_ids_in_tokenizers(bert, saved, hard_text, draw):
    text = draw.draw(hard_text)
    ids = bert.encode(text, allowed_special="all")
    assert saved.encode(text, add_special_tokens=False).ids == ids
    assert saved.encode(text).ids == bert.with_special_tokens(ids)


@pytest.mark.oracle
@given(draw=st.data())
def test_pairs_equal_those_of_tokenizers(bert, saved, hard_text, draw):
    first, second = draw.draw(hard_text), draw.draw(hard_text)
    expected = saved.encode(first, second)
    assert sentence_pair(bert, first, second, allowed_special="all") == (expected.ids, expected.type_ids)


@pytest.mark.oracle
def test_both_files_hold_the_same_tokenizer(bert, packaged):
    other = Tokenizer.load(packaged("bert") / "vocab.txt")
    assert (other.model.pieces, other.model.rules, other.added) == (bert.model.pieces, bert.model.rules, bert.added)
    assert (other.bos, other.eos, other.with_special_tokens([])) == (bert.bos, bert.eos, bert.with_special_tokens([]))


@pytest.mark.oracle
@given(draw=st.data())
def test_added_tokens_are_found_where_tokenizers_finds_them(packaged, tmp_path_factory, hard_text, draw):
    from tokenizers import AddedToken as Token
    from tokenizers import Tokenizer as Reference

    theirs = Reference.from_file(str(packaged("bert") / "tokenizer.json"))
    theirs.no_padding()
    theirs.no_truncation()
    theirs.add_tokens([Token("NewTok", normalized=True), Token("É!", normalized=True), Token("Asis", normalized=False)])
    path = tmp_path_factory.getbasetemp() / "bert-with-added-tokens.json"
    theirs.save(str(path))
    parts = st.sampled_from(
        ["newtok", "NEWTOK", "Asis", "asis", "É!", "e!", "e\u0301!", " ", "中", "new\u00adtok", "a\u302e\U0001d165"]
    )
    text = draw.draw(st.lists(parts | hard_text, max_size=6).map("".join))
    expected = theirs.encode(text, add_special_tokens=False)
    assert Tokenizer.load(path).encode_with_offsets(text, allowed_special="all") == (expected.ids, expected.offsets)
