"""The script that makes the table."""

import zlib

import numpy as np
import pytest

from refllm.tokenizer.words.make_unicode_categories import matched, pack
from refllm.tokenizer.words.unicode_categories import PATH, members, unicode_categories


def test_the_packed_table_is_the_file_that_travels():
    assert zlib.decompress(pack(unicode_categories())) == zlib.decompress(PATH.read_bytes())


@pytest.mark.oracle
@pytest.mark.parametrize("name", ["L", "N", "M", "s", "Lu"])
def test_the_table_is_what_tiktoken_sees(name):
    found = np.zeros(members(name).size, bool)
    found[matched(r"\s" if name == "s" else rf"\p{{{name}}}")] = True
    np.testing.assert_array_equal(found, members(name))


@pytest.mark.oracle
def test_the_table_is_what_tokenizers_sees():
    from tokenizers import Regex, pre_tokenizers

    text = "".join(chr(point) for point in range(0x20000) if not 0xD800 <= point < 0xE000)  # beyond are ideographs and gaps
    points = np.array([ord(character) for character in text])
    for name in ("L", "N", "s"):
        pattern = Regex(r"\s" if name == "s" else rf"\p{{{name}}}")
        outside = np.zeros(points.size, bool)
        for _, (start, end) in pre_tokenizers.Split(pattern, "removed").pre_tokenize_str(text):
            outside[start:end] = True
        np.testing.assert_array_equal(~outside, members(name)[points])
