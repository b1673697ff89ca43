"""SentencePiece's BPE in a tokenizer.json."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.tokenizer import AddedToken, Tokenizer
from refllm.tokenizer.formats.hugging_face import to_document
from refllm.tokenizer.formats.hugging_face_sentence_piece import ESCAPE, IDLE_SPLIT, PREPEND
from refllm.tokenizer.sentence_piece import SentencePieceBPE, merges_by_score


@pytest.fixture(scope="module")
def file(llama2, tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "tokenizer.json"
    llama2.save(path)
    return path


@pytest.fixture(scope="module")
def again(file):
    return Tokenizer.load(file)


def small(prefix, scheme="every"):
    pieces = dict(enumerate([" ", "a", "b", "ab", " ab"], 256))
    scores = {id: float(-id) for id in pieces}
    return Tokenizer(SentencePieceBPE(pieces, merges_by_score(pieces, scores), byte_ids=range(256), prefix=prefix, scheme=scheme))


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
    with pytest.raises(
        ValueError, match=r"^a tokenizer\.json cannot hold this model: the piece 'ab' has a character that is no pi"
    ):
        Tokenizer(model).save(tmp_path)
    model = SentencePieceBPE({256: "ab"}, {}, byte_ids=range(256), user_defined=[256])
    with pytest.raises(
        ValueError, match=r"^a tokenizer\.json cannot hold this model: its user-defined pieces, such as 'ab', are "
    ):
        Tokenizer(model).save(tmp_path)


@pytest.mark.parametrize(
    ("part", "value", "message"),
    [
        (("normalizer",), {"type": "NFKC"}, "normalizer is [{'type': 'NFKC'}]; what is read here is"),
        (("pre_tokenizer",), {"type": "Punctuation"}, "pre_tokenizer.type is 'Punctuation'; what is read here is 'Metaspace'."),
        (
            ("pre_tokenizer",),
            {"type": "Metaspace", "replacement": "_"},
            "pre_tokenizer.replacement is '_'; what is read here is '\u2581'.",
        ),
        (
            ("pre_tokenizer",),
            {"type": "Metaspace", "prepend_scheme": "last"},
            "pre_tokenizer.prepend_scheme is 'last'; what is read here is 'always' or 'first' or 'never'.",
        ),
        (
            ("pre_tokenizer",),
            {"type": "Metaspace", "split": 1.5},
            "pre_tokenizer.split is 1.5; what is read here is True or False.",
        ),
        (("model", "dropout"), 0.1, "model.dropout is 0.1; what is read here is None."),
        (("model", "merges"), ["a a"], "merge 0, of 'a' and 'a', makes nothing that is in the vocabulary"),
        (("normalizer",), None, "normalizer is []; what is read here is"),
        (("model", "vocab"), {"a": 257, "b": 258, "ab": 259}, "the vocabulary has no token for the space, U+2581."),
        (("model", "vocab", "a b"), 300, "the token 'a b' has a space, which this normalizer leaves in no text"),
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


@pytest.mark.parametrize("byte_fallback", [False, True])
def test_runs_of_the_unknown_must_fuse_where_there_are_no_bytes(tmp_path, byte_fallback):
    small(" ").save(tmp_path)
    document = json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))
    document["model"] |= {"fuse_unk": False, "byte_fallback": byte_fallback}
    if byte_fallback:
        assert loaded(document, tmp_path).encode("ab") == small(" ").encode("ab")
    else:
        with pytest.raises(ValueError, match=r"model\.fuse_unk is False; what is read here is True\."):
            loaded(document, tmp_path)


UNSPLIT = {"replacement": "\u2581", "split": False}
FORMS = {
    "as Llama was": ({"type": "Sequence", "normalizers": [PREPEND, ESCAPE]}, None),
    "always": (None, {"type": "Metaspace", "prepend_scheme": "always", **UNSPLIT}),
    "first": (None, {"type": "Metaspace", "prepend_scheme": "first", **UNSPLIT}),
    "never": (None, {"type": "Metaspace", "prepend_scheme": "never", **UNSPLIT}),
    "first, split": (None, {"type": "Metaspace", "prepend_scheme": "first", "replacement": "\u2581", "split": True}),
    "always, split, as before 0.20": (None, {"type": "Metaspace", "replacement": "\u2581", "add_prefix_space": True}),
    "as Gemma": (ESCAPE, IDLE_SPLIT),
}


@pytest.fixture(scope="module", params=FORMS)
def form(request, file, tmp_path_factory):
    """Llama 2's characters and first pieces, spaces written another way: a tokenizer, its file, and one it is written to."""
    document = json.loads(file.read_text(encoding="utf-8"))
    document["normalizer"], document["pre_tokenizer"] = FORMS[request.param]
    model = document["model"]
    model["vocab"] = {piece: id for piece, id in model["vocab"].items() if id < 2000 or len(piece) == 1}
    model["merges"] = [merge for merge in model["merges"] if {*merge.split(), merge.replace(" ", "")} <= model["vocab"].keys()]
    folder = tmp_path_factory.mktemp("form")
    tokenizer = loaded(document, folder)
    tokenizer.save(folder / "written.json")
    return tokenizer, folder / "tokenizer.json", folder / "written.json"


def loaded(document, folder):
    (folder / "tokenizer.json").write_text(json.dumps(document), encoding="utf-8")
    return Tokenizer.load(folder / "tokenizer.json")


@pytest.fixture(scope="module")
def read_again(form):
    return Tokenizer.load(form[2])


@given(draw=st.data())
def test_every_form_is_written_so_that_it_reads_the_same(form, read_again, hard_text, draw):
    text = "  <s>".join(draw.draw(st.lists(hard_text, min_size=1, max_size=3)))
    assert read_again.encode(text, allowed_special="all") == form[0].encode(text, allowed_special="all")


@pytest.mark.parametrize(
    ("scheme", "pieces"),
    [
        ("every", [" ab", "<s>", " ab", "<s>", " ", " ab"]),
        ("unspaced", [" ab", "<s>", " ab", "<s>", " ab"]),
        ("first", [" ab", "<s>", "ab", "<s>", " ab"]),
    ],
)
def test_the_scheme_says_which_stretches_get_the_prefix(tmp_path, scheme, pieces):
    model = small(" ", scheme).model
    tokenizer = Tokenizer(model, [AddedToken(1000, "<s>", special=True)])
    ids = {" ": 256, "ab": 259, " ab": 260, "<s>": 1000}
    assert tokenizer.encode("ab<s>ab<s> ab", allowed_special="all") == [ids[piece] for piece in pieces]
    spaced = "ab<s>ab<s>ab" if scheme == "unspaced" else "ab<s>ab<s> ab"
    assert tokenizer.decode([ids[piece] for piece in pieces]) == spaced


def test_a_metaspace_that_splits_joins_nothing_over_a_space(tmp_path):
    pieces = dict(enumerate([" ", "  ", "a", " a", "  a", "a "], 256))
    model = SentencePieceBPE(pieces, merges_by_score(pieces, dict.fromkeys(pieces, 0.0)), byte_ids=range(256))
    Tokenizer(model).save(tmp_path)
    document = json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))
    document |= {"normalizer": None, "pre_tokenizer": {"type": "Metaspace", "prepend_scheme": "never", "split": True}}
    assert loaded(document, tmp_path).encode("a   a") == [258, 256, 256, 259]


def test_an_added_token_that_the_normalizer_would_change_is_refused(tmp_path):
    document = to_document(small(" ")) | {
        "added_tokens": [{"id": 999, "content": "<x>", "special": False, "normalized": True, "lstrip": False, "rstrip": False}]
    }
    (tmp_path / "tokenizer.json").write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(ValueError, match="normalized of the added token '<x>' is True, which makes it '\u2581<x>'; write False"):
        Tokenizer.load(tmp_path)
    document["added_tokens"][0]["special"] = True
    (tmp_path / "tokenizer.json").write_text(json.dumps(document), encoding="utf-8")
    assert Tokenizer.load(tmp_path).encode("<x>", allowed_special="all") == [999]


@pytest.mark.oracle
@given(draw=st.data())
def test_every_form_gives_the_ids_of_tokenizers(form, hard_text, draw):
    tokenizer, file, written = form
    text = "<s>".join(draw.draw(st.lists(hard_text, min_size=1, max_size=3)))
    ids = tokenizer.encode(text, allowed_special="all")
    assert hugging_face(file).encode(text).ids == ids
    assert hugging_face(written).encode(text).ids == ids


@pytest.mark.oracle
@given(draw=st.data())
def test_spans_are_those_of_tokenizers(llama2, file, hard_text, draw):
    text = draw.draw(hard_text)
    ids, spans = llama2.encode_with_offsets(text, disallowed_special=())
    theirs = hugging_face(file).encode(text)
    assert ids == theirs.ids
    if spans[:1] == [(0, 0)]:  # a token of the prefix alone covers nothing here, and the first character there
        assert theirs.offsets[0] == (0, 1)
        assert spans[1:] == theirs.offsets[1:]
    else:
        assert spans == theirs.offsets


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
