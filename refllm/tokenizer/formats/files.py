"""Which kind of tokenizer a file or a folder holds."""

import re
from pathlib import Path

from refllm.tokenizer.formats import hugging_face, llama2c, ranks, sentence_piece_model
from refllm.tokenizer.tokenizer import Tokenizer

KINDS = "tokenizer.json, tokenizer.model (SentencePiece), vocab.json with merges.txt, .tiktoken, tokenizer.bin (llama2.c)"


def load(path: Path, merges: Path | None = None, pattern: str | None = None) -> Tokenizer:
    """Open a tokenizer's file, or a folder that holds one.

    merges: the merges.txt of a vocab.json    pattern: what cuts text into words, for a rank file whose name does not say
    Raises FileNotFoundError where there is none, ValueError for a file that is damaged or of a kind not known.
    """
    if merges is not None:
        return hugging_face.load_vocab_and_merges(path, merges)
    if path.is_dir():
        for name in ("tokenizer.json", "tokenizer.model", "tokenizer.bin"):
            if (path / name).is_file():
                return load(path / name)
        if (path / "vocab.json").is_file():
            return hugging_face.load_vocab_and_merges(path / "vocab.json", path / "merges.txt")
        raise FileNotFoundError(f"{path} holds no tokenizer; it needs one of: {KINDS}.")
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there; a tokenizer's file, or a folder that holds one, is needed.")
    with path.open("rb") as file:
        start = file.read(64)
    if start.lstrip()[:1] in (b"{", b"["):
        return hugging_face.load(path)
    if start[:1] == b"\n":  # field 1 of a protobuf message
        return sentence_piece_model.load(path)
    if path.suffix == ".tiktoken" or re.match(rb"[A-Za-z0-9+/]+=* \d+\s", start):
        return ranks.load(path, pattern)
    if path.suffix == ".bin":
        return llama2c.load(path)
    raise ValueError(f"{path} is not a tokenizer's file of a kind that is known: {KINDS}.")
