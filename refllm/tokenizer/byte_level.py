"""GPT-2's printable character for each byte (Radford et al. 2019, encoder.py), in which vocabularies and merges are written.

Printable Latin-1 bytes stand for themselves; the other 68 take the characters from U+0100 on, in order of their value.
"""

_PRINTABLE = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
_OTHERS = [byte for byte in range(256) if byte not in _PRINTABLE]

BYTE_ORDER = bytes(_PRINTABLE + _OTHERS)  # the bytes in order of their characters: ids 0 … 255 of GPT-2's vocabulary
BYTE_CHARACTERS = {byte: chr(byte) for byte in _PRINTABLE} | {byte: chr(0x100 + i) for i, byte in enumerate(_OTHERS)}
CHARACTER_BYTES = {character: byte for byte, character in BYTE_CHARACTERS.items()}


def to_characters(data: bytes) -> str:
    """The printable spelling of a token's bytes: b" the" -> "Ġthe"."""
    return "".join(map(BYTE_CHARACTERS.__getitem__, data))


def to_bytes(characters: str) -> bytes:
    """The bytes that a printable spelling stands for. Raises ValueError for a character that stands for no byte."""
    try:
        return bytes(map(CHARACTER_BYTES.__getitem__, characters))
    except KeyError as error:
        raise ValueError(f"{characters!r} is not a byte-level spelling: {error.args[0]!r} stands for no byte.") from None
