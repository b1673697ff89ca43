"""SentencePiece's tokenizer.model."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.tokenizer import Tokenizer
from refllm.tokenizer.formats.sentence_piece_model import BYTE, CONTROL, NORMAL, UNKNOWN, UNUSED, USER_DEFINED, read_message
from refllm.tokenizer.unigram import float32


def varint(value):
    return bytes([value & 0x7F | 0x80]) + varint(value >> 7) if value > 0x7F else bytes([value])


def field(number, value):
    """One field of a protobuf message, as protoc writes it."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    if isinstance(value, float):
        return varint(number << 3 | 5) + struct.pack("<f", value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def model_file(pieces, trainer=b"", normalizer=b""):
    """A tokenizer.model of (text, score, type)."""
    entries = [field(1, text.encode()) + field(2, score) + field(3, kind) for text, score, kind in pieces]
    return b"".join([*(field(1, entry) for entry in entries), field(2, trainer), field(3, normalizer)])


BPE = field(3, 2) + field(35, 1)
UNIGRAM = field(3, 1) + field(35, 1)
PLAIN = field(4, 0)
PIECES = [
    ("<unk>", 0.0, UNKNOWN),
    ("<s>", 0.0, CONTROL),
    ("</s>", 0.0, CONTROL),
    *((f"<0x{byte:02X}>", 0.0, BYTE) for byte in range(256)),
    ("\u2581a", -1.0, NORMAL),
    ("a", -2.0, NORMAL),
]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("sentence_piece") / "tokenizer.model"


@given(st.lists(st.tuples(st.integers(1, 99), st.integers(0, 2**64 - 1) | st.binary(max_size=300))))
def test_a_message_is_read_as_it_was_written(values):
    expected = {}
    for number, value in values:
        expected.setdefault(number, []).append(value)
    assert read_message(b"".join(field(number, value) for number, value in values)) == expected


@pytest.mark.parametrize("part", [field(1, b"four")[:-1], field(2, 0.5)[:-1], field(3, 300)[:-1], b"\x0a"])
def test_a_message_that_ends_within_a_field_is_refused(part):
    with pytest.raises(IndexError):
        read_message(field(9, 1) + part)


def test_llama2s_file_is_read(llama2):
    assert (llama2.vocab_size, llama2.bos, llama2.eos) == (32000, 1, 2)
    assert llama2.special_tokens == {"<unk>", "<s>", "</s>"}
    assert llama2.bytes_of(15043) == b" Hello"
    assert llama2.bytes_of(3 + 0xE9) == b"\xe9"


def test_a_small_file_is_read(path):
    path.write_bytes(model_file(PIECES, BPE, PLAIN))
    assert Tokenizer.load(path).encode("aa b") == [259, 260, 3 + 32, 3 + 98]
    path.write_bytes(model_file([*PIECES, ("<u>", 0.0, USER_DEFINED)], BPE, PLAIN + field(3, 0)))
    assert Tokenizer.load(path).encode("a<u> a") == [260, 261, 259]
    path.write_bytes(model_file(PIECES, BPE + field(41, 2) + field(42, 1), PLAIN))
    assert (Tokenizer.load(path).bos, Tokenizer.load(path).eos) == (2, 1)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (model_file(PIECES, field(3, 3), PLAIN), "its algorithm is 'Word'; what is read here is 'BPE' or 'Unigram'."),
        (model_file(PIECES, BPE, PLAIN + field(2, b"map")), "its character map is damaged: it has 3 bytes and needs 4 at least."),
        (
            model_file(PIECES, BPE, PLAIN) + field(5, field(2, b"map")),
            "its character map for decoding is True; what is read here",
        ),
        (model_file(PIECES, BPE, PLAIN + field(5, 0)), "its escaping of spaces is False; what is read here is True."),
        (
            model_file([*PIECES, ("a b", 0.0, USER_DEFINED)], BPE, PLAIN),
            "its pieces with a plain space is True; what is read here",
        ),
        (model_file([*PIECES, ("a", 0.0, NORMAL)], BPE, PLAIN), "two pieces of the vocabulary are the same."),
        (model_file([*PIECES, ("b", float("nan"), NORMAL)], UNIGRAM, PLAIN), "a score of the vocabulary is not a finite number."),
        (model_file([*PIECES, ("", 0.0, NORMAL)], UNIGRAM, PLAIN), "the vocabulary has an empty piece."),
        (model_file([*PIECES, ("b", 0.0, UNUSED)], BPE, PLAIN), "its unused pieces is True; what is read here is False."),
        (model_file(PIECES[:100], BPE, PLAIN), "the vocabulary has pieces for 97 of the 256 bytes; it needs all or none."),
        (model_file(PIECES[1:3], field(3, 2), PLAIN), "the vocabulary has no piece for what is unknown; it needs one."),
        (b"\n", "is not a whole tokenizer.model"),
        (b"\nnot a model, but a text that begins with a line's end", "is not a whole tokenizer.model"),
    ],
)
def test_a_file_that_cannot_be_read_exactly_is_refused_in_one_sentence(path, content, message):
    path.write_bytes(content)
    with pytest.raises(ValueError, match="tokenizer.model") as error:
        Tokenizer.load(path)
    assert message in str(error.value)


@given(st.data())
def test_a_truncated_or_damaged_file_is_read_or_refused_by_name(path, charsmap, data):
    character_map = field(2, charsmap({"A": "a", "\t": " "}))
    kind, changes = data.draw(st.sampled_from([(BPE, PLAIN), (UNIGRAM, PLAIN), (UNIGRAM, character_map)]))
    content = bytearray(model_file([*PIECES, ("<u>", 0.0, USER_DEFINED)], kind, changes))
    if data.draw(st.booleans()):
        content = content[: data.draw(st.integers(1, len(content)))]
    for _ in range(data.draw(st.integers(0, 3))):
        content[data.draw(st.integers(1, len(content))) - 1] = data.draw(st.integers(0, 255))
    content[0] = ord("\n")
    path.write_bytes(content)
    refusal = None
    try:
        Tokenizer.load(path).encode("a b", disallowed_special=())
    except ValueError as error:
        refusal = str(error)
    assert refusal is None or refusal.startswith(str(path))


def test_a_unigram_file_is_read(path, charsmap):
    pieces = [*PIECES, ("b", -3.5, NORMAL), ("ab", -1.5, UNUSED), ("<uu>", -9.0, USER_DEFINED), (" a", 0.0, USER_DEFINED)]
    character_map = field(2, charsmap({"A": "a", "\t": " "}))
    path.write_bytes(model_file(pieces, UNIGRAM, character_map))
    tokenizer = Tokenizer.load(path)
    assert tokenizer.encode(" Ab\t<uu>c ") == [259, 261, 3 + 0xE2, 3 + 0x96, 3 + 0x81, 263, 3 + ord("c")]
    assert tokenizer.encode_with_offsets("  Ab") == ([259, 261], [(2, 3), (3, 4)])
    assert tokenizer.model.unknown_score == -13.5
    assert tokenizer.model.scores == {259: -1.0, 260: -2.0, 261: -3.5, 263: float32(0.3)}  # 0.1 for each byte but the first
    assert tokenizer.decode([259, 262, 263]) == "aab<uu>"
    path.write_bytes(model_file(pieces, UNIGRAM + field(24, 1), PLAIN))
    assert Tokenizer.load(path).model.prefix == Tokenizer.load(path).normalizer.steps[0].behind == " "


def test_a_bpe_file_with_a_normaliser_is_read_and_not_written(path, charsmap, tmp_path):
    path.write_bytes(model_file(PIECES, BPE, field(2, charsmap({"A": "a"}))))
    tokenizer = Tokenizer.load(path)
    assert tokenizer.encode("  A  A ") == [259, 259]
    assert tokenizer.decode([259, 259]) == "a a"
    with pytest.raises(ValueError, match=r"^a tokenizer\.json of a SentencePiece BPE that changes its text first is not written"):
        tokenizer.save(tmp_path)


def test_a_space_behind_the_text_is_put_there(path):
    path.write_bytes(model_file([*PIECES, ("a\u2581", -0.5, NORMAL)], BPE + field(24, 1), PLAIN))
    assert Tokenizer.load(path).encode("aa") == [260, 261]
    path.write_bytes(model_file(PIECES, BPE, field(3, 0)))
    assert Tokenizer.load(path).encode("  a a ") == [260, 259]
