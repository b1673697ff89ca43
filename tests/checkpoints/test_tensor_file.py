"""The safetensors format, read and written, against the safetensors library and against damage."""

import json
import resource

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as nps

from refllm.checkpoints import tensor_file
from refllm.checkpoints.tensor_file import Tensor

STORED = [dtype for name, dtype in tensor_file.DTYPES.items() if name != "BF16"]
arrays = nps.arrays(st.sampled_from(STORED), nps.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
tensors = st.dictionaries(st.text(max_size=8).filter(lambda name: name != "__metadata__"), arrays, max_size=4)


def same(a, b):
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("tensors") / "x.safetensors"


@given(given_tensors=tensors)
def test_what_is_written_is_read_by_the_library_and_by_refllm(path, given_tensors):
    tensor_file.write(path, {name: tensor_file.of_array(a) for name, a in given_tensors.items()}, metadata={"format": "pt"})
    theirs, ours = safetensors.numpy.load_file(path), tensor_file.read(path)
    assert theirs.keys() == ours.keys() == given_tensors.keys()
    for name, a in given_tensors.items():
        assert same(a, ours[name].values())
        assert same(a, theirs[name])
    with safetensors.safe_open(path, "np") as file:
        assert file.metadata() == {"format": "pt"}


@given(given_tensors=tensors)
def test_what_the_library_writes_is_read(path, given_tensors):
    safetensors.numpy.save_file(given_tensors, path)
    ours = tensor_file.read(path)
    assert ours.keys() == given_tensors.keys()
    assert all(same(a, ours[name].values()) for name, a in given_tensors.items())


def test_a_transposed_array_is_written_as_it_looks(path):
    a = np.arange(6, dtype=np.float32).reshape(2, 3).T
    tensor_file.write(path, {"a": tensor_file.of_array(a)})
    np.testing.assert_array_equal(safetensors.numpy.load_file(path)["a"], a)


@given(bits=nps.arrays(np.uint16, 50))
def test_every_bfloat16_survives_reading_and_writing(bits):
    numbers = tensor_file.from_bfloat16(bits)
    back = tensor_file.to_bfloat16(numbers)
    finite = ~np.isnan(numbers)
    np.testing.assert_array_equal(back[finite], bits[finite])
    assert np.all(np.isnan(tensor_file.from_bfloat16(back[~finite])))


@given(numbers=nps.arrays(np.float32, 20, elements=st.floats(width=32, allow_subnormal=False)))
def test_a_number_becomes_the_nearest_bfloat16(numbers):
    finite = numbers[np.isfinite(numbers)]
    down = tensor_file.from_bfloat16((finite.view(np.uint32) >> 16).astype(np.uint16)).astype(np.float64)  # towards zero
    with np.errstate(over="ignore"):
        up = tensor_file.from_bfloat16(((finite.view(np.uint32) >> 16) + 1).astype(np.uint16)).astype(np.float64)
    chosen = tensor_file.from_bfloat16(tensor_file.to_bfloat16(finite)).astype(np.float64)
    assert np.all((chosen == down) | (chosen == up))
    largest = np.isinf(up)  # beyond the largest finite one, infinity stands where the next would
    nearest = np.minimum(np.abs(finite - down), np.abs(finite - up))
    assert np.all((np.abs(chosen - finite) == nearest) | largest)


def test_a_number_between_two_bfloat16_becomes_the_even_one_and_nan_stays_nan():
    bits = np.asarray([0x3F808000, 0x3F818000, 0x7F7FFFFF, 0x7F800001, 0x7FFFFFFF, 0xFFFFFFFF], np.uint32)
    rounded = tensor_file.to_bfloat16(bits.view(np.float32))
    assert rounded[:3].tolist() == [0x3F80, 0x3F82, 0x7F80]  # the largest float32 lies nearer to infinity
    assert np.all(np.isnan(tensor_file.from_bfloat16(rounded[3:])))


@pytest.mark.parametrize("name", ["a", "ab", "abcdefg"])
def test_tensors_lie_aligned_in_the_file(path, name):
    tensor_file.write(path, {name: tensor_file.of_array(np.zeros(3))})
    assert int.from_bytes(path.read_bytes()[:8], "little") % 8 == 0


@pytest.mark.oracle
@given(numbers=nps.arrays(np.float32, 20, elements=st.floats(width=32)))
def test_bfloat16_is_that_of_torch(path, numbers):
    import safetensors.torch
    import torch

    theirs = torch.from_numpy(numbers).bfloat16()
    tensor_file.write(path, {"a": Tensor("BF16", (20,), lambda: numbers)})
    read = safetensors.torch.load_file(path)["a"]
    assert read.dtype == torch.bfloat16
    np.testing.assert_array_equal(read.float().numpy(), theirs.float().numpy())
    safetensors.torch.save_file({"a": theirs}, path)
    np.testing.assert_array_equal(tensor_file.read(path)["a"].values(), theirs.float().numpy())


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("whole") / "model.safetensors"
    tensor_file.write(path, {"a": tensor_file.of_array(np.arange(6.0)), "b": tensor_file.of_array(np.ones((2, 3), np.int32))})
    return path.read_bytes()


@given(data=st.data())
def test_a_truncated_file_is_refused_with_a_sentence(path, whole, data):
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    with pytest.raises(ValueError, match=r"x.safetensors is truncated"):
        tensor_file.read(path)


def test_a_file_with_bytes_to_spare_is_refused_with_a_sentence(path, whole):
    path.write_bytes(whole + b"\0")
    with pytest.raises(ValueError, match=r"damaged: it has \d+ bytes, and its header describes \d+. Fetch or write it again."):
        tensor_file.read(path)


@given(data=st.data())
def test_a_damaged_header_is_refused_with_a_sentence_or_describes_other_tensors(path, whole, data):
    place = data.draw(st.integers(0, 8 + int.from_bytes(whole[:8], "little") - 1))
    path.write_bytes(whole[:place] + data.draw(st.binary(min_size=1, max_size=1)) + whole[place + 1 :])
    refused = None
    try:
        for tensor in tensor_file.read(path).values():
            tensor.values()
    except ValueError as error:
        refused = str(error)
    assert refused is None or "x.safetensors is" in refused


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "F32", "shape": [-2, -3], "data_offsets": [0, 24]},
        {"dtype": "F32", "shape": [2.0, 3], "data_offsets": [0, 24]},
        {"dtype": "F32", "shape": [2, 3], "data_offsets": [24, 0]},
        {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 20]},
        {"dtype": "F32", "shape": [2, 3]},
        {"dtype": "F32", "shape": "23", "data_offsets": [0, 24]},
        [1, 2],
    ],
)
def test_a_header_that_contradicts_itself_is_refused_with_a_sentence(path, entry):
    header = json.dumps({"a": entry}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(24))
    with pytest.raises(ValueError, match="is not a safetensors file: its header does not describe tensors"):
        tensor_file.read(path)


def file_of(**entries):
    header = json.dumps(entries).encode()
    return len(header).to_bytes(8, "little") + header


def four(begin, end):
    return {"dtype": "F32", "shape": [(end - begin) // 4], "data_offsets": [begin, end]}


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (file_of(a=four(0, 8), b=four(4, 12)) + bytes(12), "b begins at byte 4, but a ends at 8"),
        (file_of(a=four(0, 8), b=four(0, 8)) + bytes(8), "b begins at byte 0, but a ends at 8"),
        (file_of(a=four(0, 8), b=four(12, 16)) + bytes(16), "b begins at byte 12, but a ends at 8"),
        (file_of(a=four(4, 8)) + bytes(8), "a begins at byte 4, but the header ends at 0"),
        (file_of(a={"dtype": "F32", "shape": [1 << 70, 0], "data_offsets": [0, 0]}), "describe tensors"),
        (file_of(a={"dtype": "F32", "shape": [1 << 40, 1 << 40, 0], "data_offsets": [0, 0]}), "describe tensors"),
        (file_of(a={"dtype": "F32", "shape": [1] * 65, "data_offsets": [0, 4]}) + bytes(4), "a shape of 65 axes"),
        (file_of(a=four(0, 1 << 61)), "describe tensors"),
        (file_of(a={**four(0, 4), "x": 1}) + bytes(4), "describe tensors"),
        (b"\x1d" + bytes(7) + b'{"a":{},"a":{"dtype":"F32"}}  ', "the key 'a' stands twice in it"),
        ((1 << 20).to_bytes(8, "little") + b"[" * (1 << 20), "it is nested too deep"),
    ],
)
def test_a_header_that_lies_is_refused_with_a_sentence(path, content, sentence):
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"x.safetensors is not a safetensors file: .*{sentence}"):
        tensor_file.read(path)


def test_a_header_of_gigabytes_is_not_read(path):
    with open(path, "wb") as file:
        file.write((1 << 33).to_bytes(8, "little"))
        file.truncate(1 << 34)
    with pytest.raises(ValueError, match=r"a header has at most 100000000 bytes, not 8589934592"):
        tensor_file.read(path)


def test_a_number_too_large_for_float16_is_refused_and_the_old_file_kept(path, whole):
    path.write_bytes(whole)
    with pytest.raises(ValueError, match=r"b holds 70000, which float16 cannot hold; store bfloat16 or float32 instead."):
        tensor_file.write(path, {name: Tensor("F16", (2,), lambda: np.asarray([1.0, 7e4])) for name in "b"})
    assert path.read_bytes() == whole
    tensor_file.write(path, {"b": Tensor("F16", (2,), lambda: np.asarray([1.0, np.inf]))})
    assert np.isinf(tensor_file.read(path)["b"].values()[1])


def test_a_dtype_that_cannot_be_read_is_named_when_it_is_asked_for(path):
    header = json.dumps({"a": {"dtype": "F8_E4M3", "shape": [3], "data_offsets": [0, 3]}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(3))
    with pytest.raises(ValueError, match=r"a in .*x.safetensors is stored in F8_E4M3; BOOL, .* can be read."):
        tensor_file.read(path)["a"].values()


def test_a_disk_that_fills_up_while_tensors_are_written_leaves_the_old_file(path, whole):
    path.write_bytes(whole)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))  # the system itself then refuses to write on
    try:
        with pytest.raises(OSError, match=r"x.safetensors could not be written \(File too large\)"):
            tensor_file.write(path, {"a": tensor_file.of_array(np.zeros(100_000))})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == whole
    assert [p.name for p in path.parent.iterdir()] == ["x.safetensors"]
