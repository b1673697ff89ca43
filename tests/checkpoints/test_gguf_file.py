"""The GGUF format: the package's files read, quantised blocks held to their definition, and every lie of a header refused."""

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as nps

from refllm.checkpoints import gguf_file
from refllm.checkpoints.gguf_file import PLAIN, QUANTISED, dequantise

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


# What a block holds, in scalar Python


def half(block, place):
    return struct.unpack_from("<e", block, place)[0]


def q4_0(block):
    """float16 d, 16 bytes: the low halves of all, then the high ones."""
    d, q = half(block, 0), block[2:]
    return [d * ((b & 15) - 8) for b in q] + [d * ((b >> 4) - 8) for b in q]


def q8_0(block):
    """float16 d, 32 int8."""
    return [half(block, 0) * (b - 256 * (b > 127)) for b in block[2:]]


def q4_k(block):
    """float16 d and dmin, 8 scales and 8 minima of 6 bits in 12 bytes, 128 bytes: of each 32, the low halves, then the high."""
    d, least, s, q = half(block, 0), half(block, 2), block[4:16], block[16:]
    y = []
    for j in range(8):
        scale, minimum = s[j % 4], s[j % 4 + 4]
        if j < 4:
            scale, minimum = scale & 63, minimum & 63
        else:
            scale, minimum = s[j + 4] & 15 | s[j - 4] >> 6 << 4, s[j + 4] >> 4 | s[j] >> 6 << 4
        part = q[j // 2 * 32 : j // 2 * 32 + 32]
        y += [d * scale * ((b >> 4) if j % 2 else (b & 15)) - least * minimum for b in part]
    return y


def q6_k(block):
    """128 bytes of low halves, 64 bytes of pairs of high bits, 16 int8 scales, float16 d."""
    low, high, scales, d = block[:128], block[128:192], struct.unpack_from("<16b", block, 192), half(block, 208)
    y = [0.0] * 256
    for n in range(2):
        for i in range(128):
            byte = low[64 * n + i % 64]
            bits = (byte >> 4 if i >= 64 else byte & 15) | (high[32 * n + i % 32] >> 2 * (i // 32) & 3) << 4
            y[128 * n + i] = d * scales[8 * n + i // 16] * (bits - 32)
    return y


DEFINITIONS = {"Q4_0": q4_0, "Q8_0": q8_0, "Q4_K": q4_k, "Q6_K": q6_k}
SCALES = {"Q4_0": (0,), "Q8_0": (0,), "Q4_K": (0, 2), "Q6_K": (208,)}  # where float16 numbers stand in a block


@st.composite
def blocks(draw, name):
    """A row of blocks, and the bytes of each: anything, but finite scales."""
    size, n = next(size for kind, _, size in QUANTISED.values() if kind == name), draw(st.integers(1, 3))
    data = draw(nps.arrays(np.uint8, (n, size)))
    for place in SCALES[name]:
        data[:, place : place + 2] = draw(nps.arrays("<f2", (n, 1), elements=st.floats(-100, 100, width=16))).view(np.uint8)
    return data


@pytest.mark.parametrize("name", DEFINITIONS)
@given(data=st.data())
def test_a_block_holds_what_its_definition_says(path, name, data):
    rows = data.draw(blocks(name))
    expected = np.asarray([DEFINITIONS[name](row.tobytes()) for row in rows])
    numbers = expected.shape[1]
    write(path, {"a": (rows.reshape(1, -1), name), "b": (rows, name)})
    tensors = gguf_file.read(path).tensors
    for key, shape in (("a", (1, expected.size)), ("b", (len(rows), numbers))):
        tensor = tensors[key].tensor()
        assert (tensor.dtype, tensor.shape) == ("F32", shape)
        error = np.abs(tensor.values().reshape(-1, numbers) - expected)
        assert np.all(error <= np.finfo(np.float32).eps * np.abs(expected))  # products of few bits are exact: one rounding
    assert tensors["b"].part(len(rows) - 1).values().shape == (numbers,)
    np.testing.assert_array_equal(tensors["b"].part(len(rows) - 1).values(), tensors["b"].values()[-1])


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
