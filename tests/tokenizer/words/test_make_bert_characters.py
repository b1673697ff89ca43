"""The script that makes the table."""

import zlib

import numpy as np
import pytest

from refllm.tokenizer.words.bert_characters import PATH, flags, lower_case
from refllm.tokenizer.words.make_bert_characters import kinds, lower_cases, pack


def test_the_packed_table_is_the_file_that_travels():
    pairs = np.array([(point, ord(lower)) for point, lower in lower_case().items() if len(lower) == 1])
    assert zlib.decompress(pack(flags(), pairs)) == zlib.decompress(PATH.read_bytes())


@pytest.mark.oracle
def test_the_table_is_what_tokenizers_sees():
    np.testing.assert_array_equal(kinds(), flags())
    assert dict(lower_cases()) == {point: ord(lower) for point, lower in lower_case().items() if len(lower) == 1}
