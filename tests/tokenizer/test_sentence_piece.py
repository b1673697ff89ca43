"""SentencePiece's BPE: the definition, the package, and what comes back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.array_api import load
from refllm.bench import texts
from refllm.conformance.specification import definitions
from refllm.tokenizer import StreamDecoder, Tokenizer, sentence_piece
from refllm.tokenizer.sentence_piece import LONG, SentencePieceBPE, merges_by_score

letters = st.text(st.sampled_from("ab "), min_size=1, max_size=4)


@st.composite
def scored(draw):
    """Pieces of a few letters with scores, some equal; not every letter is a piece."""
    pieces = draw(st.lists(letters, unique=True, max_size=12))
    return {piece: draw(st.integers(-6, 0)) for piece in pieces}


@st.composite
def models(draw):
    """Models of a few pieces, some scores equal, some letters no piece, some pieces user-defined; with bytes or without."""
    pieces = dict(enumerate(draw(st.lists(letters, unique=True, min_size=1, max_size=10)), 300))
    scores = {id: draw(st.integers(-6, 0)) for id in pieces}
    user_defined = [id for id in pieces if draw(st.integers(0, 4)) == 0]
    byte_ids = draw(st.sampled_from([(), range(256)]))
    return SentencePieceBPE(pieces, merges_by_score(pieces, scores), byte_ids, user_defined, unknown=7)


def model_of(scores, **options):
    pieces = dict(enumerate(scores, 300))
    merges = merges_by_score(pieces, {id: scores[piece] for id, piece in pieces.items()})
    return SentencePieceBPE(pieces, merges, **options)


def spelled(model, ids):
    return b"".join(model.vocabulary[id] for id in ids).decode()


@given(scored(), st.text(st.sampled_from("abc "), min_size=1, max_size=24), st.sampled_from(["", " "]))
def test_joining_equals_its_definition(scores, text, prefix):
    model = model_of(scores, byte_ids=range(256), prefix=prefix)
    expected = []
    for symbol in definitions()["sentence_piece_joined"](list(prefix + text), scores):
        expected += [list(scores).index(symbol) + 300] if symbol in scores else list(symbol.encode())
    assert model.encode(text) == expected
    assert model.encode_array(text, load("numpy").xp).tolist() == expected
    assert spelled(model, expected) == prefix + text


@given(scored(), st.text(st.sampled_from("abc "), min_size=1, max_size=24))
def test_without_bytes_a_run_of_unknown_characters_is_one_token(scores, text):
    symbols = definitions()["sentence_piece_joined"](list(" " + text), scores)
    ids = [list(scores).index(symbol) + 300 if symbol in scores else 0 for symbol in symbols]
    expected = [id for i, id in enumerate(ids) if id != 0 or i == 0 or ids[i - 1] != 0]
    assert model_of(scores, unknown=0).encode(text) == expected


def test_user_defined_pieces_are_found_first_and_never_joined():
    scores = {"<a>": 0, "<a><b>": 0, "x<": -1, "ab": -2, " ab": -3, "> ": -4}
    model = model_of(scores, byte_ids=range(256), user_defined=[300, 301])
    assert model.encode("ab<a><b>ab<a>") == [304, 301, 303, 300]
    assert model.encode("x<a>") == [32, 120, 300]
    scores["<a>b"] = 1
    model = model_of(scores, byte_ids=range(256), user_defined=[300, 301])
    assert not [pair for pair, merge in model.merges.items() if {300, 301} & {*pair, merge.id}]


@given(data=st.data())
def test_decoding_inverts_sentence_pieces(llama2, hard_text, data):
    text = data.draw(hard_text).replace("\u2581", "")
    assert llama2.decode(llama2.encode(text, disallowed_special=())) == text
    ids = llama2.encode(f"<s>{text}</s>{text}", allowed_special="all")
    assert llama2.decode(ids) == f"<s>{text}</s>{text}"
    decoder = StreamDecoder(llama2)
    assert "".join([*map(decoder.push, ids), decoder.finish()]) == f"<s>{text}</s>{text}"


def test_an_escaped_space_in_the_text_reads_as_a_space(llama2):
    assert llama2.encode("a\u2581b") == llama2.encode("a b")


def test_a_stream_after_a_prompt_keeps_its_first_space(llama2):
    ids = llama2.encode("Once upon a time")
    told = StreamDecoder(llama2, context=ids[:2])
    assert "".join(map(told.push, ids[2:])) == " a time"
    untold = StreamDecoder(llama2)
    assert "".join(map(untold.push, ids[2:])) == "a time"


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("", []),
        (" ", [259]),
        ("Hello  wörld 😀 \ufffd", [15043, 29871, 281, 1340, 430, 29871, 243, 162, 155, 131, 29871, 30140]),
        ("x <s> \x00", [921, 529, 29879, 29958, 29871, 3]),
        ("I love street food.", [306, 5360, 11952, 9687, 29889]),
    ],
)
def test_llama2s_ids_are_those_of_sentencepiece(llama2, text, ids):
    """The ids were printed by sentencepiece 0.2.3."""
    assert llama2.encode(text, disallowed_special=()) == ids


def test_a_vocabulary_with_a_gap_is_refused():
    with pytest.raises(
        ValueError, match=r"^the vocabulary has neither pieces for bytes nor one for what is unknown; it needs either\.$"
    ):
        SentencePieceBPE({0: "a"}, {})
    with pytest.raises(ValueError, match=r"^the vocabulary has pieces for 3 of the 256 bytes; it needs all or none\.$"):
        SentencePieceBPE({0: "a"}, {}, byte_ids=range(1, 4))
    with pytest.raises(ValueError, match=r"^the vocabulary has an empty piece\.$"):
        SentencePieceBPE({0: ""}, {}, unknown=1)
    with pytest.raises(ValueError, match=r"^the vocabulary has the id 16777216; ids here are below 16777216\.$"):
        SentencePieceBPE({1 << 24: "a"}, {}, unknown=1)


@given(models(), st.lists(st.text(st.sampled_from("abcé 😀"), min_size=1, max_size=12), max_size=4), st.sampled_from(["", " "]))
def test_long_text_is_encoded_as_short_text_is(model, parts, prefix):
    text = "".join(parts)
    model = SentencePieceBPE(model.pieces, model.merges, model.byte_ids, model.user_defined, prefix, unknown=7)
    expected = model.encode(text)
    for limits in (
        {"LONG": 0, "MANY": 1, "CHUNK": 3},
        {"LONG": 0, "MANY": 1, "LONGEST_SEGMENT": 1, "CHUNK": 5},
        {"LONG": 1, "MANY": 99},
    ):
        again = SentencePieceBPE(model.pieces, model.merges, model.byte_ids, model.user_defined, prefix, unknown=7)
        with pytest.MonkeyPatch.context() as patch:
            for name, value in limits.items():
                patch.setattr(sentence_piece, name, value)
            assert again.encode(text) == expected
            assert again.encode(text) == expected  # from memory


@given(scored(), st.text(st.sampled_from("abc "), min_size=1, max_size=24))
def test_segments_are_joined_on_their_own(scores, text):
    segments = definitions()["sentence_piece_segments"](text, scores)
    model = model_of(scores, byte_ids=range(256), prefix="")
    assert "".join(segments) == text
    assert [id for segment in segments for id in model.encode(segment)] == model.encode(text)


def test_a_list_of_ids_shares_its_ints(llama2):
    ids = llama2.encode("文 字 " * LONG + "the words " * LONG)
    assert len({id(token) for token in ids}) <= 2 * len(set(ids))


@pytest.mark.parametrize("letter", ["a", " ", "=", "文", "😀", "\n"])
def test_equal_letters_come_back_however_many(llama2, letter):
    text = letter * 100_000
    assert llama2.decode(llama2.encode(text)) == text


def test_spans_begin_where_the_text_does_and_cover_whole_characters(llama2):
    text = "Hello  wörld 😀"
    ids, spans = llama2.encode_with_offsets(text)
    assert ids == llama2.encode(text)
    covered = ["Hello", " ", " w", "ör", "ld", " ", "😀", "😀", "😀", "😀"]
    assert [text[start:end] for start, end in spans] == covered
    assert spans[0] == (0, 5)
    assert llama2.encode_with_offsets(" a")[1] == [(0, 0), (0, 2)]
    assert llama2.encode_with_offsets("\n")[1] == [(0, 0), (0, 1)]


PACKAGED = ["llama2", "mistral_v1", "mistral_v3"]


@pytest.fixture(scope="session", params=PACKAGED)
def beside_sentencepiece(request, data, packaged):
    """A tokenizer.model in refllm, and in sentencepiece."""
    spm = pytest.importorskip("sentencepiece", reason="not installed: pip install sentencepiece")
    path = data / "llama2-tokenizer.model" if request.param == "llama2" else packaged(request.param)
    return Tokenizer.load(path), spm.SentencePieceProcessor(model_file=str(path))


def assert_equal_to_theirs(both, text):
    ours, theirs = both
    expected = theirs.encode(text)
    assert ours.encode(text, disallowed_special=()) == expected
    assert ours.encode_array(text, disallowed_special=(), backend="numpy").tolist() == expected


@pytest.mark.oracle
@given(data=st.data())
def test_any_text_has_sentencepieces_ids(beside_sentencepiece, hard_text, data):
    adversarial = st.sampled_from(
        ["\u2581", "\u2581\u2581", " " * 17, "\t\t", "\n\n\n", "\x00", "\x85", "[REFERENCE_DOC_1]", "DOC_1]"]
    )
    assert_equal_to_theirs(beside_sentencepiece, "".join(data.draw(st.lists(hard_text | adversarial, max_size=6))))


@pytest.mark.oracle
@pytest.mark.parametrize("letter", ["a", " ", "=", "文", "😀", "\n", "\u2581"])
def test_equal_letters_have_sentencepieces_ids(beside_sentencepiece, letter):
    assert_equal_to_theirs(beside_sentencepiece, letter * 100_000)


@pytest.mark.oracle
def test_books_code_and_one_long_word_have_sentencepieces_ids(beside_sentencepiece, topics, data):
    assert_equal_to_theirs(beside_sentencepiece, (data / "tinyshakespeare.txt").read_text(encoding="utf-8"))
    assert_equal_to_theirs(beside_sentencepiece, topics)
    assert_equal_to_theirs(beside_sentencepiece, texts.code(1 << 20))
    assert_equal_to_theirs(beside_sentencepiece, texts.mix(1 << 18, seed=0))
    assert_equal_to_theirs(beside_sentencepiece, texts.random_word(100_000, seed=0))
