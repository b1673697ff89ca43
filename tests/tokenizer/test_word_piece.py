"""WordPiece: its definition, its arrays, Hugging Face's tokenizers, and what comes back."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.array_api import load
from refllm.conformance.specification import definitions
from refllm.tokenizer import AddedToken, StreamDecoder, Tokenizer
from refllm.tokenizer.formats import vocab_txt
from refllm.tokenizer.text import repaired
from refllm.tokenizer.word_piece import CHUNK, WordPiece, chunks, code_points
from refllm.tokenizer.words.bert import CASED, UNCASED, BertRules, bert_words

UNKNOWN = 100
spellings = st.builds(str.__add__, st.sampled_from(["", "##"]), st.text(st.sampled_from("abé中."), min_size=1, max_size=4))
texts = st.text(st.sampled_from("abABé中. ,'\t\u00ad\u0301"), max_size=40)
rules = st.sampled_from([UNCASED, CASED, BertRules(handle_chinese_chars=False)])


@st.composite
def models(draw, **options):
    pieces = draw(st.lists(spellings, unique=True, min_size=1, max_size=16))
    return WordPiece(dict(enumerate(pieces)), UNKNOWN, **options)


def spelled(model, ids):
    return [model.pieces.get(id, "[UNK]") for id in ids]


@given(models(), st.text(st.sampled_from("abé"), min_size=1, max_size=8), st.integers(1, 8))
def test_pieces_equal_their_definition(model, word, longest_word):
    expected = definitions()["word_pieces"](word, list(model.pieces.values()), longest_word)
    model = WordPiece(model.pieces, UNKNOWN, CASED, longest_word=longest_word)
    assert spelled(model, model.encode(word)) == expected


@given(models(), texts, rules, st.integers(1, 8))
def test_pieces_by_arrays_equal_those_of_remembered_words(backend, model, text, rules, longest_word):
    model = WordPiece(model.pieces, UNKNOWN, rules, longest_word=longest_word)
    ids = model.encode_points(code_points(text, backend.xp))
    assert ids.dtype == backend.xp.int32
    assert backend.xp.to_numpy(ids).tolist() == model.encode(text)
    assert backend.xp.to_numpy(model.encode_array(text, backend.xp)).tolist() == model.encode(text)


@given(models(), texts, rules, st.booleans())
def test_decoded_and_encoded_again_the_ids_are_the_same(model, text, rules, cleanup):
    """Where none is unknown."""
    model = WordPiece(model.pieces | {90: "a", 91: "##a", 92: "b", 93: "##b"}, UNKNOWN, rules, cleanup=cleanup)
    ids = [id for word in bert_words(text, rules) if UNKNOWN not in model.encode(word) for id in model.encode(word)]
    tokenizer = Tokenizer(model)
    assert tokenizer.encode(tokenizer.decode(ids)) == ids


@given(models(rules=CASED), texts)
def test_offsets_of_a_cased_model_spell_its_pieces(model, text):
    ids, spans = model.encode_with_offsets(text)
    assert ids == model.encode(text)
    for id, (start, end) in zip(ids, spans, strict=True):
        if id != UNKNOWN:
            assert text[start:end].replace("\u00ad", "") == model.pieces[id].removeprefix("##")


def test_offsets_leave_out_what_was_dropped_at_the_ends():
    model = WordPiece({0: "cafe", 1: "##s", 2: "!", 3: "ii"}, UNKNOWN)
    assert model.encode_with_offsets("\u00adcafe\u0301S! \u0130I zz") == (
        [0, 1, 2, 3, UNKNOWN],
        [(1, 5), (6, 7), (7, 8), (9, 11), (12, 14)],
    )


def test_decoding_joins_words_by_spaces_and_cleans_up():
    pieces = {0: "do", 1: "##ing", 2: ".", 3: "'", 4: "s", 5: "'s", 6: ",", 7: "##,", 8: "n't", 9: "##", 10: "-"}
    clean, plain = Tokenizer(WordPiece(pieces, UNKNOWN)), Tokenizer(WordPiece(pieces, UNKNOWN, cleanup=False))
    assert clean.decode([0, 1, 6, 0, 2, 0, 3, 4, 5, 8, 10, 7, 9]) == "doing, do. do ' s'sn't -,"
    assert plain.decode([0, 1, 6, 0, 2, 0, 3, 4, 5]) == "doing , do . do ' s 's"


def test_added_tokens_are_decoded_as_words():
    added = [AddedToken(2, "[CLS]", special=True), AddedToken(3, "<new>", special=False)]
    tokenizer = Tokenizer(WordPiece({0: "a", 1: "##s"}, UNKNOWN), added)
    assert tokenizer.decode([2, 0, 3, 0, 1, 2, 1, 2]) == "[CLS] a <new> as [CLS]s [CLS]"
    assert tokenizer.decode([2, 0, 3, 0, 1, 2, 1, 2], skip_special=True) == "a <new> ass"


def test_pieces_of_another_prefix_and_those_that_look_like_one_are_found():
    assert WordPiece({0: "a", 1: "xb", 2: "xbc"}, UNKNOWN, continuing="x").encode("ab abc xb") == [0, 1, 0, 2, 1]
    assert WordPiece({0: "a", 1: "ab", 2: ""}, UNKNOWN, continuing="").encode("aba") == [1, 0]
    assert WordPiece({0: "##", 1: "#"}, UNKNOWN).encode("##a#") == [1, 1, UNKNOWN, 1]


def test_a_word_of_more_than_a_hundred_characters_is_unknown():
    model = WordPiece({0: "a", 1: "##a"}, UNKNOWN)
    assert model.encode("a" * 100) == [0] + [1] * 99
    assert model.encode("a" * 101 + " a") == [UNKNOWN, 0]
    assert model.encode("a" * 1_000_000) == [UNKNOWN]


@pytest.mark.parametrize("text", ["", " ", "a" * (2 * CHUNK), "ab " * CHUNK, "x" * CHUNK + " a b" * CHUNK + " "])
def test_long_texts_are_cut_before_spaces(text):
    pieces = list(chunks(text))
    assert "".join(pieces) == text
    assert all(piece[0] == " " for piece in pieces[1:])
    assert len(pieces) <= 1 + len(text) // CHUNK
    model, xp = WordPiece({0: "a", 1: "ab", 2: "b"}, UNKNOWN), load("numpy").xp
    expected = [id for word in text.split() for id in model.encode(word)]
    assert model.encode(text) == expected
    assert model.encode_array(text, xp).tolist() == expected
    assert model.encode_array(text, xp).dtype == np.int32


# Against Hugging Face's tokenizers, with BERT's own vocabulary


@pytest.fixture(scope="module")
def bert(packaged):
    """BERT's uncased tokenizer."""
    return vocab_txt.load(packaged("bert") / "vocab.txt")


@pytest.fixture(scope="module")
def reference(packaged):
    """The same in tokenizers, by rules."""
    from tokenizers import Tokenizer, normalizers

    def made(rules):
        tokenizer = Tokenizer.from_file(str(packaged("bert") / "tokenizer.json"))
        tokenizer.no_padding()
        tokenizer.no_truncation()
        tokenizer.normalizer = normalizers.BertNormalizer(**rules._asdict())
        return tokenizer

    return made


@pytest.fixture(scope="module", params=[UNCASED, CASED, BertRules(False, False, True, False)], ids=str)
def pair(request, bert, reference):
    """Our tokenizer and theirs."""
    model = bert.model
    ours = Tokenizer(WordPiece(model.pieces, model.unknown, request.param), bert.added)
    return ours, reference(request.param)


@pytest.mark.oracle
@given(data=st.data())
def test_ids_and_offsets_equal_those_of_tokenizers(pair, hard_text, broken_text, data):
    ours, theirs = pair
    text = repaired(data.draw(hard_text | broken_text))
    expected = theirs.encode(text, add_special_tokens=False)
    assert ours.encode_with_offsets(text, allowed_special="all") == (expected.ids, expected.offsets)
    assert ours.encode(text, allowed_special="all") == expected.ids


@pytest.mark.oracle
@given(text=st.text(st.sampled_from("aé\u0301\u0327\u302e\u302f\U0001d165\u08d4\u08e0\u0903 \u00ad"), max_size=12))
def test_offsets_of_marks_in_another_order_equal_those_of_tokenizers(pair, text):
    ours, theirs = pair
    expected = theirs.encode(text, add_special_tokens=False)
    assert ours.encode_with_offsets(text) == (expected.ids, expected.offsets)


@pytest.mark.oracle
def test_ids_of_real_texts_equal_those_of_tokenizers(pair, data, topics):
    ours, theirs = pair
    for text in ((data / "tinyshakespeare.txt").read_text(), topics):
        expected = theirs.encode(text, add_special_tokens=False)
        assert ours.encode_with_offsets(text) == (expected.ids, expected.offsets)
        assert ours.encode(text) == expected.ids


@pytest.mark.oracle
def test_ids_of_real_texts_by_arrays_are_the_same(bert, topics, backend):
    text = topics[: 1 << 16]
    assert backend.xp.to_numpy(bert.model.encode_points(code_points(text, backend.xp))).tolist() == bert.encode(text)


@pytest.mark.oracle
def test_every_code_point_within_a_word_has_the_ids_and_offsets_of_tokenizers(bert, reference):
    theirs = reference(UNCASED)
    points = [point for point in range(0x110000) if not 0xD800 <= point < 0xE000 and not 0x40000 <= point < 0xE0000]
    for start in range(0, len(points), 1 << 15):
        text = " ".join(f"a{chr(point)}b" for point in points[start : start + (1 << 15)])
        expected = theirs.encode(text, add_special_tokens=False)
        assert bert.encode_with_offsets(text) == (expected.ids, expected.offsets)


@pytest.mark.oracle
@given(
    ids=st.lists(st.integers(0, 30521) | st.sampled_from([101, 102, 103, 1005, 1010, 1012, 1029, 999, 1056, 1049]), max_size=12),
    skip=st.booleans(),
)
def test_texts_of_ids_equal_those_of_tokenizers(bert, reference, ids, skip):
    first = 1996  # "the": of a text that begins with a piece such as ##ing, tokenizers writes the ## too
    assert bert.decode([first, *ids], skip) == reference(UNCASED).decode([first, *ids], skip)
    assert bert.decode([101, first, *ids], skip) == reference(UNCASED).decode([101, first, *ids], skip)
    stream = StreamDecoder(bert)
    assert "".join(map(stream.push, ids)) + stream.finish() == bert.decode(ids)


@pytest.mark.oracle
@given(data=st.data())
def test_ids_equal_those_of_transformers(packaged, bert, hard_text, data):
    from transformers import BertTokenizer

    theirs = _once(BertTokenizer.from_pretrained, packaged("bert"))
    text = repaired(data.draw(hard_text))
    assert bert.with_special_tokens(bert.encode(text, allowed_special="all")) == theirs(text)["input_ids"]


_MADE = {}


def _once(make, path):
    if path not in _MADE:
        _MADE[path] = make(path)
    return _MADE[path]
