"""SentencePiece's BPE in a tokenizer.json."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.tokenizer import Tokenizer
from refllm.tokenizer.sentence_piece import SentencePieceBPE, merges_by_score


@pytest.fixture(scope="module")
def file(llama2, tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "tokenizer.json"
    llama2.save(path)
    return path


@pytest.fixture(scope="module")
def again(file):
    return Tokenizer.load(file)


def small(prefix):
    pieces = dict(enumerate([" ", "a", "b", "ab", " ab"], 256))
    scores = {id: float(-id) for id in pieces}
    return Tokenizer(SentencePieceBPE(pieces, merges_by_score(pieces, scores), byte_ids=range(256), prefix=prefix))


@given(draw=st.data())
def test_a_saved_tokenizer_gives_the_same_ids(llama2, again, hard_text, draw):
    text = draw.draw(hard_text)
    assert again.encode(text, allowed_special="all") == llama2.encode(text, allowed_special="all")
    assert again.decode(again.encode(text, allowed_special="all")) == text.replace("\u2581", " ")


def test_a_saved_tokenizer_has_the_same_pieces_and_special_tokens(llama2, again):
    assert again.model.pieces == llama2.model.pieces
    assert again.model.byte_ids == llama2.model.byte_ids
    assert (again.model.prefix, again.model.unknown) == (llama2.model.prefix, llama2.model.unknown)
    assert (again.added, again.bos, again.eos) == (llama2.added, llama2.bos, llama2.eos)


def test_of_two_pairs_that_join_to_one_piece_the_longer_left_part_comes_first(tmp_path):
    pieces = dict(enumerate([" ", "a", "b", " a", "ab", " ab"], 256))
    model = SentencePieceBPE(pieces, merges_by_score(pieces, dict.fromkeys(pieces, 0.0)), byte_ids=range(256))
    Tokenizer(model).save(tmp_path)
    document = json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))
    assert document["model"]["merges"] == ["\u2581a b", "\u2581 ab", "\u2581 a", "a b"]


@pytest.mark.parametrize("prefix", ["", " "])
def test_the_prefix_is_kept(tmp_path, prefix):
    small(prefix).save(tmp_path)
    assert Tokenizer.load(tmp_path).encode("ab ab") == small(prefix).encode("ab ab")


def test_a_model_that_the_file_cannot_hold_is_refused(tmp_path):
    model = SentencePieceBPE({256: "ab"}, merges_by_score({256: "ab"}, {256: 0.0}), byte_ids=range(256))
    with pytest.raises(ValueError, match=r"^a tokenizer\.json cannot hold this model: it has user-defined pieces, or characters"):
        Tokenizer(model).save(tmp_path)


@pytest.mark.parametrize(
    ("part", "value", "message"),
    [
        (("normalizer",), {"type": "NFKC"}, "normalizer is [{'type': 'NFKC'}]; what is read here is"),
        (("pre_tokenizer",), {"type": "Metaspace"}, "pre_tokenizer is {'type': 'Metaspace'}; what is read here is None."),
        (("model", "fuse_unk"), False, "model.fuse_unk is False; what is read here is True."),
        (("model", "dropout"), 0.1, "model.dropout is 0.1; what is read here is None."),
        (("model", "merges"), ["a a"], "merge 0 makes 'aa', which is not in the vocabulary."),
        (("normalizer",), None, "is not built as a tokenizer.json"),
    ],
)
def test_a_part_that_is_not_known_is_named(tmp_path, part, value, message):
    small(" ").save(tmp_path)
    document = json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))
    inner = document
    for name in part[:-1]:
        inner = inner[name]
    inner[part[-1]] = value
    (tmp_path / "tokenizer.json").write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(ValueError, match="tokenizer.json") as error:
        Tokenizer.load(tmp_path)
    assert message in str(error.value)


@pytest.mark.oracle
@given(draw=st.data())
def test_the_file_gives_the_same_ids_in_tokenizers(llama2, file, hard_text, draw):
    theirs = hugging_face(file)
    text = draw.draw(hard_text)
    assert theirs.encode(text).ids == llama2.encode(text, disallowed_special=())
    assert theirs.decode(theirs.encode(text).ids) == text.replace("\u2581", " ")


@pytest.mark.oracle
def test_special_tokens_give_the_same_ids_in_tokenizers(llama2, file):
    text = "<s>[INST] Tell me. [/INST] Once</s><s> again"
    assert hugging_face(file).encode(text).ids == llama2.encode(text, allowed_special="all")


LOADED = {}


def hugging_face(file):
    import tokenizers

    if file not in LOADED:
        LOADED[file] = tokenizers.Tokenizer.from_file(str(file))
    return LOADED[file]
