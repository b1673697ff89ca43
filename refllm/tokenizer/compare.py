"""What tokenizers make of the same text: how many bytes and characters a token holds, in all and for each script.

A token that holds several scripts, such as a space and Latin letters, is shared among them by its bytes: each byte of a token of
n bytes counts as 1/n of a token. So the tokens of all scripts add up to those of the text; only a token without bytes, as the
first of a SentencePiece text may be, belongs to none.
"""

from typing import NamedTuple

import numpy as np

from refllm.tokenizer.text import repaired
from refllm.tokenizer.tokenizer import Tokenizer
from refllm.tokenizer.words.unicode_categories import N_CODE_POINTS, members

OTHER_LETTERS, DIGITS, SPACES, SYMBOLS, EMOJI = "other letters", "digits", "spaces", "signs", "emoji"

# Letters and marks by Unicode's blocks: the first code point and the one behind the last
BLOCKS = {
    "Latin": [
        (0x41, 0x250),
        (0x1E00, 0x1F00),
        (0x2C60, 0x2C80),
        (0xA720, 0xA800),
        (0xAB30, 0xAB70),
        (0xFB00, 0xFB07),
        (0xFF21, 0xFF5B),
    ],
    "Greek": [(0x370, 0x400), (0x1F00, 0x2000)],
    "Cyrillic": [(0x400, 0x530), (0x1C80, 0x1C90), (0x2DE0, 0x2E00), (0xA640, 0xA6A0)],
    "Armenian": [(0x530, 0x590)],
    "Hebrew": [(0x590, 0x600), (0xFB1D, 0xFB50)],
    "Arabic": [(0x600, 0x700), (0x750, 0x780), (0x870, 0x900), (0xFB50, 0xFE00), (0xFE70, 0xFF00)],
    "Indic": [(0x900, 0xE00), (0xA8E0, 0xA900)],
    "Thai and Lao": [(0xE00, 0xF00)],
    "Georgian": [(0x10A0, 0x1100), (0x1C90, 0x1CC0), (0x2D00, 0x2D30)],
    "Ethiopic": [(0x1200, 0x13A0), (0x2D80, 0x2DE0)],
    "Hangul": [(0x1100, 0x1200), (0x3130, 0x3190), (0xA960, 0xA980), (0xAC00, 0xD800), (0xFFA0, 0xFFDD)],
    "Kana": [(0x3040, 0x3100), (0x31F0, 0x3200), (0xFF66, 0xFFA0), (0x1B000, 0x1B170)],
    "Han": [(0x2E80, 0x2FE0), (0x3005, 0x3008), (0x3400, 0x4DC0), (0x4E00, 0xA000), (0xF900, 0xFB00), (0x20000, 0x323B0)],
}
EMOJI_BLOCKS = [(0x2600, 0x27C0), (0x1F000, 0x1FB00), (0xFE0E, 0xFE10), (0x200D, 0x200E), (0xE0020, 0xE0080)]
SCRIPTS = (*BLOCKS, OTHER_LETTERS, DIGITS, SPACES, EMOJI, SYMBOLS)


class Share(NamedTuple):
    """What one script takes of a text."""

    n_bytes: int
    n_tokens: float  # a token that holds several scripts counts in parts


class Measured(NamedTuple):
    """What a tokenizer makes of a text."""

    n_bytes: int
    n_characters: int
    n_tokens: int
    n_unknown: int  # tokens for characters that the vocabulary cannot write
    scripts: dict[str, Share]  # those that occur; none where the tokens do not spell the text byte for byte

    @property
    def bytes_per_token(self) -> float:
        """How much of the text a token holds; 0 for no text."""
        return self.n_bytes / self.n_tokens if self.n_tokens else 0.0

    @property
    def characters_per_token(self) -> float:
        """The same in characters."""
        return self.n_characters / self.n_tokens if self.n_tokens else 0.0


def measured(tokenizer: Tokenizer, text: str) -> Measured:
    """What the tokenizer makes of a text; special tokens that it spells are ordinary text."""
    text = repaired(text)
    data = text.encode()
    ids = tokenizer.encode_array(text, disallowed_special=(), backend="numpy")
    unknown = getattr(tokenizer.model, "unknown", None)
    n_unknown = 0 if unknown is None else int(np.count_nonzero(ids == unknown))
    pieces = spelled(tokenizer, ids, data)
    scripts = {} if pieces is None else shares(text, np.array(list(map(len, pieces)), np.int64))
    return Measured(len(data), len(text), len(ids), n_unknown, scripts)


def spelled(tokenizer: Tokenizer, ids: np.ndarray, data: bytes) -> list[bytes] | None:
    """The bytes of each id in a text of these bytes, or None where they do not spell it. ids: (tokens,) int32"""
    token = {id: tokenizer.bytes_of(id) for id in np.unique(ids).tolist()}
    pieces = [token[id] for id in ids.tolist()]
    if (joined := b"".join(pieces)) == data:
        return pieces
    if (prefix := tokenizer.model.prefix.encode()) and joined == prefix + data:
        return [pieces[0].removeprefix(prefix), *pieces[1:]]
    pieces = list(tokenizer.stretches(ids.tolist()))
    return pieces if b"".join(pieces) == data else None


def total(parts: list[Measured]) -> Measured:
    """Of several texts together. Scripts are told where every text tells them."""
    scripts: dict[str, Share] = {}
    if all(part.scripts or not part.n_tokens for part in parts):
        for name in SCRIPTS:
            found = [part.scripts[name] for part in parts if name in part.scripts]
            if found:
                scripts[name] = Share(sum(share.n_bytes for share in found), sum(share.n_tokens for share in found))
    return Measured(
        n_bytes=sum(part.n_bytes for part in parts),
        n_characters=sum(part.n_characters for part in parts),
        n_tokens=sum(part.n_tokens for part in parts),
        n_unknown=sum(part.n_unknown for part in parts),
        scripts=scripts,
    )


def shares(text: str, lengths: np.ndarray) -> dict[str, Share]:
    """What each script takes of a text whose tokens hold so many bytes: lengths (tokens,) int64, in all the bytes of the text."""
    points = np.frombuffer(text.encode("utf-32-le"), "<u4")
    widths = 1 + (points >= 0x80).astype(np.int64) + (points >= 0x800) + (points >= 0x10000)  # bytes of UTF-8
    script = np.repeat(scripts_of_points().take(points), widths)
    filled = lengths[lengths > 0]
    part = np.repeat(1 / filled, filled)
    n_bytes = np.bincount(script, minlength=len(SCRIPTS))
    n_tokens = np.bincount(script, part, len(SCRIPTS))
    found = zip(SCRIPTS, n_bytes.tolist(), n_tokens.tolist(), strict=True)
    return {name: Share(of_bytes, of_tokens) for name, of_bytes, of_tokens in found if of_bytes}


def scripts_of_points() -> np.ndarray:
    """The place in SCRIPTS of each code point's script: (0x110000,) uint8."""
    places = np.full(N_CODE_POINTS, SCRIPTS.index(SYMBOLS), np.uint8)
    for first, behind in EMOJI_BLOCKS:
        places[first:behind] = SCRIPTS.index(EMOJI)
    letters = members("L") | members("M")
    places[letters] = SCRIPTS.index(OTHER_LETTERS)
    for name, blocks in BLOCKS.items():
        for first, behind in blocks:
            places[first:behind][letters[first:behind]] = SCRIPTS.index(name)
    places[0x300:0x370] = SCRIPTS.index(OTHER_LETTERS)  # marks that go with any letter
    places[0xFE0E:0xFE10] = SCRIPTS.index(EMOJI)  # what chooses a sign's emoji form
    places[members("N")] = SCRIPTS.index(DIGITS)
    places[members("s")] = SCRIPTS.index(SPACES)
    return places
