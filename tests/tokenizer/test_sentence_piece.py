"""SentencePiece's BPE: the definition, the package, and what comes back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.array_api import load
from refllm.conformance.specification import definitions
from refllm.tokenizer import StreamDecoder
from refllm.tokenizer.sentence_piece import SentencePieceBPE, merges_by_score

letters = st.text(st.sampled_from("ab "), min_size=1, max_size=4)


@st.composite
def scored(draw):
    """Pieces of a few letters with scores, some equal; not every letter is a piece."""
    pieces = draw(st.lists(letters, unique=True, max_size=12))
    return {piece: draw(st.integers(-6, 0)) for piece in pieces}


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


@pytest.fixture(scope="session")
def sentencepiece_llama2(data):
    spm = pytest.importorskip("sentencepiece", reason="not installed: pip install sentencepiece")
    return spm.SentencePieceProcessor(model_file=str(data / "llama2-tokenizer.model"))


@pytest.mark.oracle
@given(data=st.data())
def test_any_text_has_sentencepieces_ids(llama2, sentencepiece_llama2, hard_text, data):
    text = data.draw(hard_text)
    assert llama2.encode(text, disallowed_special=()) == sentencepiece_llama2.encode(text)


@pytest.mark.oracle
def test_a_book_has_sentencepieces_ids(llama2, sentencepiece_llama2, topics):
    assert llama2.encode(topics[:100_000]) == sentencepiece_llama2.encode(topics[:100_000])
