"""BERT's vocab.txt: a piece a line, whose number, from 0, is its id.

How text is cut stands in the tokenizer_config.json beside it. Where that does not say whether everything is made lower case, the
vocabulary does: a model that knows upper case has pieces that hold some.
"""

from pathlib import Path
from typing import Any

from refllm.tokenizer.formats.hugging_face_parts import read_json
from refllm.tokenizer.template import Template
from refllm.tokenizer.tokenizer import AddedToken, Tokenizer
from refllm.tokenizer.word_piece import WordPiece
from refllm.tokenizer.words.bert import BertRules

CONFIG = "tokenizer_config.json"
SPECIAL = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}  # where the config names no others


def load(path: Path, lowercase: bool | None = None) -> Tokenizer:
    """Open a vocab.txt.

    lowercase: whether text is made lower case; where it is None, the tokenizer_config.json says so, else the vocabulary
    Raises ValueError for a file that is damaged.
    """
    try:
        pieces = read_pieces(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} is not a whole vocab.txt ({error}); copy it again.") from None
    config = _read_config(path.with_name(CONFIG))
    names = {name: _content(config.get(f"{name}_token", usual)) for name, usual in SPECIAL.items()}
    ids = {piece: id for id, piece in enumerate(pieces)}
    if names["unk"] not in ids:
        raise ValueError(f"{path} has no {names['unk']}, which stands for unknown words; it is no vocab.txt, or truncated.")
    added = [AddedToken(ids[name], name, special=True) for name in dict.fromkeys(names.values()) if name in ids]
    model_pieces = {id: piece for piece, id in ids.items() if piece not in names.values()}
    if lowercase is None:
        lowercase = config.get("do_lower_case")
    if lowercase is None:
        lowercase = not any(piece != piece.lower() for piece in model_pieces.values() if piece[:1] != "[")  # [unused0] is no word
    rules = BertRules(True, config.get("tokenize_chinese_chars", True), config.get("strip_accents"), lowercase)
    cls, sep = ids.get(names["cls"]), ids.get(names["sep"])
    around = {"type": "BertProcessing", "cls": [names["cls"], cls], "sep": [names["sep"], sep]}
    template = None if cls is None or sep is None else Template((cls,), (sep,), around)
    return Tokenizer(WordPiece(model_pieces, ids[names["unk"]], rules), added, cls, sep, template=template)


def read_pieces(data: bytes) -> list[str]:
    """The pieces in order of id. Raises ValueError for data that is no UTF-8, and for a piece that comes twice."""
    numbers: dict[str, int] = {}
    for number, line in enumerate(data.decode("utf-8").removesuffix("\n").split("\n"), 1):
        piece = line.removesuffix("\r")
        if piece in numbers:
            raise ValueError(f"lines {numbers[piece]} and {number} are both {piece!r}")
        numbers[piece] = number
    return list(numbers)


def _read_config(path: Path) -> dict[str, Any]:
    """The tokenizer_config.json, or nothing where there is none. Raises ValueError where it is damaged."""
    if not path.is_file():
        return {}
    config = read_json(path)
    for name in ("do_lower_case", "strip_accents", "tokenize_chinese_chars"):
        if config.get(name) not in (None, True, False):
            raise ValueError(f"{path}: {name} is {config[name]!r}; it is true, false or null.")
    return config


def _content(token: Any) -> str:
    """A token's text in a tokenizer_config.json, where it stands as it is or in an object."""
    return str(token["content"] if isinstance(token, dict) and "content" in token else token)
