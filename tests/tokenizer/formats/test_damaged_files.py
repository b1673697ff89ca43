"""Every loader on damaged files: what it cannot read it refuses with one ValueError that names the file, quickly."""

import base64
import json
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.tokenizer import Tokenizer, train_bpe
from refllm.tokenizer.byte_level import to_characters

SMALL = train_bpe("low lower lowest " * 3, 264)
JUNK = [None, True, -1, 3, 1 << 62, 1.5, "x", "", [], {}, ["x"], {"x": 1}, [[1, 2]], {"type": "Sequence"}, {"type": "BPE"}]


def field(number, payload):
    return bytes([number << 3 | 2, *varint(len(payload))]) + payload


def varint(value):
    return [*([value & 0x7F | 0x80, *varint(value >> 7)] if value > 0x7F else [value])]


def sentence_piece(algorithm=2):
    """A small SentencePiece model: what is unknown, its ends, the bytes and a few pieces."""
    special = [("<unk>", 2), ("<s>", 3), ("</s>", 3)]
    pieces = [
        *special,
        *((f"<0x{byte:02X}>", 6) for byte in range(256)),
        *((p, 1) for p in ["\u2581", "a", "b", "ab", "\u2581ab"]),
    ]
    entries = [
        field(1, field(1, piece.encode()) + b"\x15" + struct.pack("<f", -float(i)) + bytes([0x18, kind]))
        for i, (piece, kind) in enumerate(pieces)
    ]
    trainer = bytes([0x18, algorithm, 0x98, 0x02, 1])
    return b"".join(entries) + field(2, trainer) + field(3, field(1, b"identity") + bytes([0x20, 0]))


def llama2c():
    pieces = ["<unk>", "\n<s>\n", "\n</s>\n", *(f"<0x{byte:02X}>" for byte in range(256)), " ", "a", "ab"]
    parts = [struct.pack("<fi", -float(i), len(piece.encode())) + piece.encode() for i, piece in enumerate(pieces)]
    return struct.pack("<i", 8) + b"".join(parts)


def tekken():
    vocab = [
        {"rank": rank, "token_bytes": base64.b64encode(token).decode(), "token_str": None}
        for rank, token in enumerate([*(bytes([byte]) for byte in range(256)), b"ab"])
    ]
    config = {"pattern": r"\S+|\s", "default_vocab_size": 277, "default_num_special_tokens": 20, "version": "v3"}
    return {"config": config, "vocab": vocab}


def tokenizer_json():
    from refllm.tokenizer.formats.hugging_face import to_document

    return to_document(SMALL) | {
        "normalizer": {"type": "Sequence", "normalizers": [{"type": "NFC"}]},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<|endoftext|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [],
            "special_tokens": {"<|endoftext|>": {"id": "<|endoftext|>", "ids": [263], "tokens": ["<|endoftext|>"]}},
        },
    }


RANKS = b"".join(base64.b64encode(token) + b" %d\n" % id for id, token in SMALL.model.vocabulary.items())
MERGES = "#version: 0.2\n" + "\n".join(" ".join(to_characters(SMALL.bytes_of(id)) for id in pair) for pair in SMALL.model.pairs())
FILES = {
    "tokenizer.json": json.dumps(tokenizer_json()).encode(),
    "tekken.json": json.dumps(tekken()).encode(),
    "tokenizer.model": sentence_piece(),
    "unigram.model": sentence_piece(algorithm=1),
    "cl100k_base.tiktoken": RANKS,
    "tokenizer.bin": llama2c(),
    "vocab.txt": "\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "low", "##er", "l"]).encode(),
    "vocab.json": json.dumps({to_characters(token): id for id, token in SMALL.model.vocabulary.items()}).encode(),
    "merges.txt": MERGES.encode(),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Whole files of every kind, each in a folder of its own with those that belong to it."""
    root = tmp_path_factory.mktemp("files")
    for name, content in FILES.items():
        (root / name).mkdir()
        (root / name / name).write_bytes(content)
        if name in ("vocab.json", "merges.txt"):
            other = "vocab.json" if name == "merges.txt" else "merges.txt"
            (root / name / other).write_bytes(FILES[other])
    return root


def outcome(path, content):
    """The tokenizer of a damaged file, or the message that refuses it."""
    path.write_bytes(content)
    try:
        tokenizer = Tokenizer.load(path)
        tokenizer.decode(tokenizer.encode("lower ab\n", disallowed_special=()))
    except ValueError as error:
        return str(error)
    return None


@pytest.mark.parametrize("name", FILES)
def test_a_whole_file_is_read(folder, name):
    assert Tokenizer.load(folder / name / name).encode("ab low")
    assert Tokenizer.load(folder / name).encode("ab low") or name == "unigram.model"


@pytest.mark.parametrize("name", FILES)
@given(data=st.data())
def test_a_truncated_file_is_read_or_refused_by_name(folder, name, data):
    content = FILES[name]
    message = outcome(folder / name / name, content[: data.draw(st.integers(0, len(content) - 1))])
    assert message is None or str(folder / name) in message


@pytest.mark.parametrize("name", FILES)
@given(data=st.data())
def test_a_file_with_other_bytes_is_read_or_refused_by_name(folder, name, data):
    content = bytearray(FILES[name])
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    message = outcome(folder / name / name, bytes(content))
    assert message is None or str(folder / name) in message


@pytest.mark.parametrize("name", ["tokenizer.json", "tekken.json"])
@given(data=st.data())
def test_a_file_with_another_value_somewhere_is_read_or_refused_by_name(folder, name, data):
    document = json.loads(FILES[name])
    place = document
    for _ in range(data.draw(st.integers(0, 4))):
        inner = place[data.draw(st.sampled_from(keys(place)))]
        if not keys(inner):
            break
        place = inner
    place[data.draw(st.sampled_from(keys(place)))] = data.draw(st.sampled_from(JUNK))
    message = outcome(folder / name / name, json.dumps(document).encode())
    assert message is None or str(folder / name) in message


def keys(part):
    if isinstance(part, dict):
        return list(part)
    return list(range(min(len(part), 3))) if isinstance(part, list) else []


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tokenizer.json", b"[" * 100_000),
        ("tokenizer.json", b'{"model":' * 100_000),
        ("tokenizer.json", b'{"model": ' + b"9" * 5000 + b"}"),
        ("tokenizer.json", b'{"model": "\\ud800"}'),
        ("tokenizer.json", b"\xef\xbb\xbf{}"),
        ("tokenizer.model", b"\n\xff\xff\xff\xff\x07" + b"abc"),
        ("tokenizer.model", b"\n" + b"\xff" * 2000),
        ("tokenizer.model", b"\n\x03\x0a\x01a" * 3),
        ("tokenizer.bin", struct.pack("<ifi", 1 << 30, 0.0, 1 << 30) + b"abc"),
        ("tokenizer.bin", struct.pack("<ifi", 8, 0.0, -5) + b"abc"),
        ("tokenizer.bin", struct.pack("<i", 8) + bytes(8) * 1000),
        ("cl100k_base.tiktoken", b"IQ== 99999999999999999999\n"),
        ("cl100k_base.tiktoken", b"IQ== -1\n"),
        ("cl100k_base.tiktoken", RANKS + b"bG93bG93 2000000000\n"),
        ("vocab.txt", b"\xff[UNK]"),
        ("vocab.txt", b""),
        ("vocab.txt", b"[UNK]\n\n\n"),
        ("tekken.json", b'{"config": {}, "vocab": []}'),
        ("vocab.json", b"{}"),
        ("vocab.json", b'{"a": 1000000000000}'),
        ("vocab.json", b'{"a": [1]}'),
        ("merges.txt", b"#version: 0.2\n\xff\xfe"),
    ],
)
def test_what_claims_too_much_is_refused_in_one_sentence(folder, name, content):
    message = outcome(folder / name / name, content)
    assert message is not None
    assert str(folder / name) in message
    assert "\n" not in message


@pytest.mark.parametrize("name", FILES)
def test_a_folder_of_that_name_and_an_empty_file_are_refused(tmp_path, name):
    (tmp_path / name).mkdir()
    with pytest.raises(FileNotFoundError, match="holds no tokenizer; it needs one of"):
        Tokenizer.load(tmp_path / name)
    (tmp_path / "empty").mkdir()
    message = outcome(tmp_path / "empty" / name, b"")
    assert message is not None
    assert name in message
