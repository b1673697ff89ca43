"""The GGUF format: the package's files read, quantised tensors among them, and every lie of a header refused."""

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as nps

from refllm.checkpoints import gguf_file
from refllm.checkpoints.gguf_file import PLAIN, QUANTISED, dequantise
from refllm.conformance.specification import definitions

gguf = pytest.importorskip("gguf", reason="the package gguf is not installed; pip install '.[gguf]'")


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("gguf") / "x.gguf"


def write(path, tensors, **fields):
    """A file written by the package. tensors: name -> array, or (bytes, name of a quantised type)"""
    writer = gguf.GGUFWriter(path, "llama")
    for name, value in fields.items():
        writer.add_key_value(name, *value)
    for name, a in tensors.items():
        raw, kind = a if isinstance(a, tuple) else (a, None)
        writer.add_tensor(name, raw, raw_dtype=kind and gguf.GGMLQuantizationType[kind])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@given(rows=nps.arrays(np.uint8, st.tuples(st.integers(1, 3), st.just(34)), elements=st.integers(0, 99)))
def test_quantised_tensors_are_read_whole_and_in_parts(path, rows):
    expected = np.asarray([definitions()["q8_0"](row.tolist()) for row in rows], np.float32)
    write(path, {"a": (rows.reshape(1, -1), "Q8_0"), "b": (rows, "Q8_0")})
    tensors = gguf_file.read(path).tensors
    assert tensors["a"].tensor()[:2] == ("F32", (1, expected.size))
    np.testing.assert_array_equal(tensors["a"].tensor().values(), expected.reshape(1, -1))
    np.testing.assert_array_equal(tensors["b"].values(), expected)
    np.testing.assert_array_equal(tensors["b"].part(len(rows) - 1).values(), expected[-1])


@given(
    a=nps.arrays(st.sampled_from([np.float32, np.float16, np.float64]), nps.array_shapes(max_dims=3, max_side=5)),
    words=st.lists(st.text(max_size=5), max_size=4),
    numbers=st.lists(st.integers(-(2**31), 2**31 - 1), min_size=1, max_size=4),
)
def test_what_the_package_writes_is_read(path, a, words, numbers):
    types = gguf.GGUFValueType
    fields = {"words": (words, types.ARRAY, types.STRING), "numbers": (numbers, types.ARRAY, types.INT32)}
    fields |= {"on": (True, types.BOOL), "small": (1e-6, types.FLOAT32), "text": ("é", types.STRING), "n": (2**40, types.UINT64)}
    bits = (np.arange(6, dtype=np.float32).view(np.uint32) >> 16).astype(np.uint16)
    write(path, {"a": a, "b": (bits.view(np.uint8), "BF16")}, **{k: v for k, v in fields.items() if v[0] != []})
    file = gguf_file.read(path)
    assert file.tensors["a"].values().dtype == a.dtype
    np.testing.assert_array_equal(file.tensors["a"].values(), a)
    np.testing.assert_array_equal(file.tensors["b"].values(), np.arange(6, dtype=np.float32))
    assert file.metadata.get("words", []) == words
    assert file.metadata["numbers"].tolist() == numbers
    assert {k: file.metadata[k] for k in ("on", "small", "text", "n")} == {"on": True, "small": 1e-6, "text": "é", "n": 2**40}
    assert file.metadata["general.architecture"] == "llama"


def test_a_tensor_of_float32_is_a_view_of_the_file(path):
    write(path, {"a": np.ones((2, 3), np.float32)})
    values = gguf_file.read(path).tensors["a"].values()
    assert not values.flags.owndata
    assert not values.flags.writeable


def test_the_types_known_here_are_those_of_the_package():
    for kind, (name, block, size) in QUANTISED.items():
        assert gguf.GGMLQuantizationType[name] == kind
        assert gguf.GGML_QUANT_SIZES[kind] == (block, size)
        assert dequantise(np.zeros((1, size), np.uint8), name, (1, block)).shape == (1, block)
    for kind, (name, dtype) in PLAIN.items():
        assert gguf.GGMLQuantizationType[name] == kind
        assert np.dtype(dtype).itemsize == gguf.GGML_QUANT_SIZES[kind][1]


# Files written by hand, to lie


def string(text):
    return struct.pack("<Q", len(text.encode())) + text.encode()


def described(name, shape, kind, offset):
    return (
        string(name) + struct.pack("<I", len(shape)) + struct.pack(f"<{len(shape)}Q", *shape) + struct.pack("<IQ", kind, offset)
    )


def by_hand(tensors=(), fields=(), data=b"", magic=b"GGUF", version=3, counts=None):
    n_tensors, n_fields = counts or (len(tensors), len(fields))
    head = magic + struct.pack("<IQQ", version, n_tensors, n_fields) + b"".join(fields) + b"".join(tensors)
    return head + bytes(-len(head) % 32) + data


def number(key, value, kind=4, code="<I"):
    return string(key) + struct.pack("<I", kind) + struct.pack(code, value)


TWO = (described("a", (2,), 0, 0), described("b", (2,), 0, 32))


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "is truncated or not a GGUF file: it has 0 bytes"),
        (by_hand(magic=b"GGML"), "is not a GGUF file that can be read: it begins otherwise"),
        (by_hand(version=1), "it is of version 1; versions 2 and 3, little-endian, can be read"),
        (by_hand(version=3 << 24), "it is big-endian; versions 2 and 3, little-endian"),
        (by_hand(counts=(2**63, 0)), "is truncated or damaged: its header speaks of more than its 32 bytes"),
        (by_hand(counts=(0, 2**63)), "is truncated or damaged: its header speaks of more than its 32 bytes"),
        (by_hand(fields=[struct.pack("<Q", 2**62)], counts=(0, 1)), "is truncated or damaged"),
        (by_hand(fields=[string("k") + struct.pack("<IIQ", 9, 4, 2**60)]), "is truncated or damaged"),
        (by_hand(fields=[string("k") + struct.pack("<IIQ", 9, 8, 2**60)]), "is truncated or damaged"),
        (by_hand(fields=[string("k") + struct.pack("<IIQQ", 9, 8, 2, 2**60) + bytes(64)]), "is truncated or damaged"),
        (by_hand(fields=[string("k") + struct.pack("<IIQ", 9, 9, 1) + bytes(64)]), "its metadata has a value of type 9"),
        (by_hand(fields=[number("k", 1, kind=77)]), "its metadata has a value of type 77"),
        (by_hand(fields=[number("k", 1), number("k", 2)]), "its metadata gives 'k' twice"),
        (by_hand([TWO[0], TWO[0]], data=bytes(64)), "it holds 'a' twice"),
        (by_hand([described("a", (1,) * 5, 0, 0)], data=bytes(32)), "'a' has 5 axes; there are at most 4"),
        (
            by_hand([described("a", (2,), 40, 0)], data=bytes(32)),
            "'a' is stored in type 40 of ggml; F32, F16, .*Q6_K can be read",
        ),
        (by_hand([described("a", (33,), 8, 0)], data=bytes(64)), r"'a' has the shape \(33,\), which its blocks of 32"),
        (by_hand([described("a", (2**62, 2**62), 0, 0)], data=bytes(64)), r"'a' has the shape .*, which its blocks of 1"),
        (by_hand([described("a", (2**50,), 0, 0)], data=bytes(64)), "is truncated or damaged: its header speaks of more"),
        (by_hand(TWO, data=bytes(32)), "is truncated or damaged: its header speaks of more"),
        (by_hand(TWO, data=bytes(96)), r"it has 192 bytes, and its header describes 136"),
        (by_hand([TWO[0], described("b", (2,), 0, 0)], data=bytes(64)), "'b' begins at byte 0 of the tensors, but 'a' ends at 8"),
        (
            by_hand([TWO[0], described("b", (2,), 0, 64)], data=bytes(96)),
            "'b' begins at byte 64 of the tensors, but 'a' ends at 8",
        ),
        (by_hand([TWO[0], described("b", (2,), 0, 8)], data=bytes(64)), "'b' begins at byte 8 of the tensors, but 'a' ends at 8"),
        (
            by_hand([described("a", (2,), 0, 32)], data=bytes(64)),
            "'a' begins at byte 32 of the tensors, but the header ends at 0",
        ),
        (by_hand(fields=[number("general.alignment", 0)]), "its tensors are aligned to 0 bytes, which must be a power of two"),
        (by_hand(fields=[number("general.alignment", 48)]), "its tensors are aligned to 48 bytes"),
        (
            by_hand(fields=[string("general.alignment") + struct.pack("<I", 8) + string("x")]),
            "its tensors are aligned to 'x' bytes",
        ),
    ],
)
def test_a_header_that_lies_is_refused_with_a_sentence(path, content, sentence):
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"x.gguf .*{sentence}" if not sentence.startswith("is") else f"x.gguf {sentence}"):
        gguf_file.read(path)


def test_a_file_written_by_hand_is_read_as_it_is_meant(path):
    path.write_bytes(by_hand(TWO, data=struct.pack("<2f", 1, 2) + bytes(24) + struct.pack("<2f", 3, 4)))
    assert {name: stored.values().tolist() for name, stored in gguf_file.read(path).tensors.items()} == {"a": [1, 2], "b": [3, 4]}


@pytest.fixture(scope="module")
def whole(path):
    types = gguf.GGUFValueType
    fields = {
        "words": (["a", "bc"], types.ARRAY, types.STRING),
        "n": (7, types.UINT32),
        "list": ([1, 2], types.ARRAY, types.INT32),
    }
    write(path, {"a": np.ones((2, 4), np.float32), "b": (np.ones((1, 34), np.uint8), "Q8_0")}, **fields)
    return path.read_bytes()


@given(data=st.data())
def test_a_damaged_file_is_refused_with_a_sentence_or_holds_something_else(path, whole, data):
    raw = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(raw) - 1))
        new = data.draw(
            st.one_of(st.binary(min_size=1, max_size=8), st.integers(0, 2**64 - 1).map(lambda n: struct.pack("<Q", n)))
        )
        raw[place : place + len(new)] = new
    path.write_bytes(raw[: data.draw(st.one_of(st.just(len(raw)), st.integers(0, len(raw))))])
    refused = None
    try:
        for stored in gguf_file.read(path).tensors.values():
            assert stored.values().shape == stored.shape
    except ValueError as error:
        refused = str(error)
    assert refused is None or "x.gguf is" in refused
