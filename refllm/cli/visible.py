"""Tokens made visible: their boundaries, their spaces and newlines, and the bytes of those that hold part of a character."""

from collections.abc import Iterable

from rich.console import Console
from rich.text import Text

BOUNDARY = "▏"  # before each token, where there is no colour
STYLES = ("black on #ffd7a8", "black on #b5e3c8")  # one token and the next
SIGNS = {" ": "·", "\n": "↵\n", "\t": "→"}
BLOCK = 512  # tokens printed at once


def visible(token: bytes) -> str:
    """The text of a token: a space as ·, a newline as ↵ before it, a tab as →, a byte that is no whole character as <0xE4>, and
    what cannot be printed by its code point, as <U+200D>.
    """
    return "".join(map(_sign, token.decode("utf-8", "surrogateescape")))


def visible_line(token: bytes) -> str:
    """The same on one line."""
    return visible(token).replace("\n", "")


def _sign(character: str) -> str:
    if "\udc80" <= character <= "\udcff":  # a byte that surrogateescape let through
        return f"<0x{ord(character) - 0xDC00:02X}>"
    if character in SIGNS:
        return SIGNS[character]
    return character if character.isprintable() else f"<U+{ord(character):04X}>"


def show(tokens: Iterable[bytes], console: Console) -> None:
    """Print tokens one behind another: in alternating colours on a terminal that has them, else with a boundary before each."""
    coloured = console.color_system is not None and not console.no_color
    text, token = Text(), b""
    for i, token in enumerate(tokens):
        if coloured:
            text.append(visible(token), STYLES[i % 2])
        else:
            text.append(BOUNDARY + visible(token))
        if i % BLOCK == BLOCK - 1:
            console.print(text, end="", soft_wrap=True)
            text = Text()
    console.print(text, end="" if token.endswith(b"\n") else "\n", soft_wrap=True)
