"""Which kind of tokenizer a file or a folder holds: by what is in it, and by its name only where that does not tell."""

import re
from pathlib import Path

from refllm.tokenizer.formats import hugging_face, llama2c, ranks, sentence_piece_model, tekken, vocab_txt
from refllm.tokenizer.formats.hugging_face_parts import read_json
from refllm.tokenizer.tokenizer import Tokenizer

KINDS = (
    "tokenizer.json, tekken.json, tokenizer.model (SentencePiece), vocab.json with merges.txt, vocab.txt, .tiktoken, "
    "tokenizer.bin (llama2.c)"
)
# Of several files in a folder the first of these is opened.
NAMES = ("tokenizer.json", "tekken.json", "tokenizer.model", "vocab.json", "vocab.txt", "tokenizer.bin")
PATTERNS = ("*.tiktoken", "*.model", "*.model.v*", "tekken*.json")  # of these there may be one
RANK = re.compile(rb"[A-Za-z0-9+/]+=* \d+\s")
SPECIAL_LINE = re.compile(rb"^\[(PAD|UNK|CLS|SEP|MASK|unused\d+)\]\r?$", re.MULTILINE)  # BERT's vocab.txt has some at its start


def load(path: Path, merges: Path | None = None, pattern: str | None = None) -> Tokenizer:
    """Open a tokenizer's file, or a folder that holds one.

    merges: the merges.txt of a vocab.json, where it does not lie beside it
    pattern: what cuts text into words, for a rank file whose name does not say
    Raises FileNotFoundError where there is none, ValueError for a file that is damaged or of a kind not known.
    """
    if path.is_dir():
        return load(in_folder(path), merges, pattern)
    if merges is not None:
        return hugging_face.load_vocab_and_merges(path, merges)
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there; a tokenizer's file, or a folder that holds one, is needed.")
    with path.open("rb") as file:
        start = file.read(256)
    if SPECIAL_LINE.search(start):
        return vocab_txt.load(path)
    if start.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] in (b"{", b"["):
        return load_json(path)
    if start[:1] == b"\n":  # field 1 of a protobuf message
        return sentence_piece_model.load(path)
    if path.suffix == ".tiktoken" or RANK.match(start):
        return ranks.load(path, pattern)
    if (path.name == "merges.txt" or start.startswith(b"#version")) and path.with_name("vocab.json").is_file():
        return hugging_face.load_vocab_and_merges(path.with_name("vocab.json"), path)
    if path.suffix == ".txt":
        return vocab_txt.load(path)
    if path.suffix == ".bin":
        return llama2c.load(path)
    raise ValueError(f"{path} is not a tokenizer's file of a kind that is known: {KINDS}.")


def in_folder(folder: Path) -> Path:
    """The file of a folder that is opened. Raises FileNotFoundError where none is known, ValueError for several alike."""
    for name in NAMES:
        if (folder / name).is_file():
            return folder / name
    for pattern in PATTERNS:
        found = sorted(folder.glob(pattern))
        if len(found) > 1:
            raise ValueError(f"{folder} holds {', '.join(path.name for path in found)}; pass the path of one of them.")
        if found:
            return found[0]
    raise FileNotFoundError(f"{folder} holds no tokenizer; it needs one of: {KINDS}.")


def load_json(path: Path) -> Tokenizer:
    """Open one of the JSON files. Raises ValueError and FileNotFoundError as `load` does."""
    document = read_json(path)
    if tekken.is_one(document):
        return tekken.load(path, document)
    if not hugging_face.is_one(document) and path.with_name("merges.txt").is_file():
        return hugging_face.load_vocab_and_merges(path, path.with_name("merges.txt"))
    return hugging_face.load(path, document)
