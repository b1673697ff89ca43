"""The script that makes the table."""

import zlib

import numpy as np
import pytest

from refllm.tokenizer.make_unicode_classes import classify, pack
from refllm.tokenizer.unicode_classes import PATH, unicode_classes


def test_the_packed_table_is_the_file_that_travels():
    assert zlib.decompress(pack(unicode_classes())) == zlib.decompress(PATH.read_bytes())


@pytest.mark.oracle
def test_the_table_is_what_tiktoken_sees():
    np.testing.assert_array_equal(classify(), unicode_classes())


@pytest.mark.oracle
def test_the_table_is_what_tokenizers_sees():
    from tokenizers import Regex, pre_tokenizers

    text = "".join(chr(point) for point in range(0x20000) if not 0xD800 <= point < 0xE000)  # beyond are ideographs and gaps
    points = np.array([ord(character) for character in text])
    for pattern, kinds in ((r"\p{L}", (1, 2, 3)), (r"\p{N}", (5,)), (r"\s", (6,))):
        others = pre_tokenizers.Split(Regex(pattern), "removed").pre_tokenize_str(text)
        outside = np.zeros(points.size, bool)
        for _, (start, end) in others:
            outside[start:end] = True
        np.testing.assert_array_equal(~outside, np.isin(unicode_classes()[points], kinds))
