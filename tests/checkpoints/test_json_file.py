"""JSON from strangers: what contradicts itself or is no JSON is refused in one sentence."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.checkpoints import json_file

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(value=values)
def test_json_is_read_as_the_library_reads_it(value):
    assert json_file.parse(json.dumps(value).encode()) == value


@given(data=st.binary(max_size=30))
def test_any_bytes_are_read_or_refused(data):
    refused = None
    try:
        json_file.parse(data)
    except ValueError as error:
        refused = str(error)
    assert refused is None or refused


@pytest.mark.parametrize("content", ['{"a": 1, "b": 2, "a": 1}', '{"x": [{"a": 1, "a": 2}]}'])
def test_a_key_that_stands_twice_is_refused(tmp_path, content):
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(ValueError, match=r"x.json is not JSON: the key 'a' stands twice in it\."):
        json_file.read_object(tmp_path / "x.json")


def test_what_is_nested_too_deep_is_refused(tmp_path):
    (tmp_path / "x.json").write_text("[" * 1_000_000)
    with pytest.raises(ValueError, match=r"x.json is not JSON: it is nested too deep\."):
        json_file.read_object(tmp_path / "x.json")


def test_what_is_no_object_or_far_too_large_is_refused(tmp_path):
    path = tmp_path / "x.json"
    path.write_text("[1]")
    with pytest.raises(ValueError, match=r"x.json holds a list; it must be a JSON object\."):
        json_file.read_object(path)
    with open(path, "wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(ValueError, match=r"x.json has 1,099,511,627,776 bytes, which is no such file"):
        json_file.read_object(path)
