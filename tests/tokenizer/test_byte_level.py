"""GPT-2's printable characters for bytes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.tokenizer.byte_level import BYTE_CHARACTERS, BYTE_ORDER, to_bytes, to_characters


@given(st.binary())
def test_bytes_are_read_back_from_their_characters(token):
    assert to_bytes(to_characters(token)) == token


def test_every_byte_has_a_printable_character_of_its_own():
    assert len(set(BYTE_CHARACTERS.values())) == len(set(BYTE_ORDER)) == 256
    assert not any(character.isspace() for character in BYTE_CHARACTERS.values())
    assert [BYTE_CHARACTERS[byte] for byte in BYTE_ORDER] == sorted(BYTE_CHARACTERS.values())


def test_the_spellings_are_gpt2s():
    assert to_characters(b" the\n") == "ĠtheĊ"
    assert to_characters("é".encode()) == "Ã©"


def test_a_character_that_stands_for_no_byte_is_named():
    with pytest.raises(ValueError, match=r"^'a b' is not a byte-level spelling: ' ' stands for no byte\.$"):
        to_bytes("a b")


@pytest.mark.oracle
def test_the_alphabet_is_that_of_tokenizers():
    from tokenizers import pre_tokenizers

    assert sorted(BYTE_CHARACTERS.values()) == sorted(pre_tokenizers.ByteLevel.alphabet())
