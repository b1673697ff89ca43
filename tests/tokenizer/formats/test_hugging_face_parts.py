"""What is common to the models inside a tokenizer.json."""

import pytest

from refllm.tokenizer.formats.hugging_face_parts import bpe, read_merges, read_vocabulary, require


def test_a_field_with_a_known_value_passes_and_another_is_named():
    require("field", 2, 1, 2)
    with pytest.raises(ValueError, match=r"^field is 3; what is read here is 1 or 2\.$"):
        require("field", 3, 1, 2)


def test_a_vocabulary_and_its_merges_are_read_as_they_were_written():
    vocabulary = {"a": 0, "b": 1, "ab": 2, "<s>": 3}
    model = bpe(vocabulary, ["a b"], byte_fallback=True)
    assert read_vocabulary(model, {"<s>"}) == {"a": 0, "b": 1, "ab": 2}
    assert read_merges(model) == [(0, 1)]
    assert (model["type"], model["byte_fallback"], model["fuse_unk"]) == ("BPE", True, False)


@pytest.mark.parametrize(
    ("vocabulary", "message"),
    [
        ({"a": 0, "b": 0}, r"two tokens of the vocabulary share an id\."),
        ({"a": True}, r"an id of the vocabulary is not a whole number from 0 up, below 4,194,304\."),
        ({"a": 1 << 22}, r"an id of the vocabulary is not a whole number from 0 up, below 4,194,304\."),
        ({"a": -1}, r"an id of the vocabulary is not a whole number from 0 up, below 4,194,304\."),
        ({"a": 1.5}, r"an id of the vocabulary is not a whole number from 0 up, below 4,194,304\."),
    ],
)
def test_ids_that_are_none_are_refused(vocabulary, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        read_vocabulary({"vocab": vocabulary}, ())


@pytest.mark.parametrize("merge", ["a", "a b a", "a c", ["a"], ["a", "c"], "", "a  b"])
def test_a_merge_that_is_no_pair_of_tokens_is_refused(merge):
    with pytest.raises(ValueError, match=r"^merge 0 is .*, which is not a pair of tokens of the vocabulary\.$"):
        read_merges({"vocab": {"a": 0, "b": 1}, "merges": [merge]})
