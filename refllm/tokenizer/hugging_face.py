"""Hugging Face's files: tokenizer.json read and written, vocab.json with merges.txt read."""

import json
import os
from pathlib import Path
from typing import Any

from refllm.tokenizer.byte_level import to_bytes, to_characters
from refllm.tokenizer.byte_level_bpe import ByteLevelBPE
from refllm.tokenizer.tokenizer import AddedToken, Tokenizer

_BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}


def load(path: Path, merges: Path | None = None) -> Tokenizer:
    """Open a tokenizer.json, a folder that holds one (or vocab.json and merges.txt), or a vocab.json with its merges.

    Raises FileNotFoundError where there is none, ValueError for a file that is damaged or of a kind not known.
    """
    if merges is not None:
        return _from_vocab_and_merges(path, merges)
    if path.is_dir():
        if (path / "tokenizer.json").is_file():
            return load(path / "tokenizer.json")
        if (path / "vocab.json").is_file() and (path / "merges.txt").is_file():
            return _from_vocab_and_merges(path / "vocab.json", path / "merges.txt")
        raise FileNotFoundError(f"{path} holds no tokenizer: neither tokenizer.json nor vocab.json with merges.txt.")
    document = _read_json(path)
    if "model" not in document:
        raise ValueError(f"{path} is no tokenizer.json: it has no 'model'. For a vocab.json pass its merges.txt too: merges=….")
    try:
        return _from_document(document, path)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is not built as a tokenizer.json ({type(error).__name__}: {error}); write it again.") from None


def save(tokenizer: Tokenizer, path: Path) -> None:
    """Write tokenizer.json at path, or in the folder path; the old file stays whole until the new one is."""
    if path.is_dir():
        path = path / "tokenizer.json"
    unfinished = path.with_name(path.name + ".unfinished")
    unfinished.write_text(json.dumps(to_document(tokenizer), ensure_ascii=False, indent=1), encoding="utf-8")
    os.replace(unfinished, path)


def to_document(tokenizer: Tokenizer) -> dict[str, Any]:
    """The content of tokenizer.json."""
    model = tokenizer.model
    spelling = {id: to_characters(token) for id, token in model.vocabulary.items()}
    vocabulary = {spelling[id]: id for id in sorted(spelling)} | {token.content: token.id for token in tokenizer.added}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {
                "id": token.id,
                "content": token.content,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": token.special,
            }
            for token in tokenizer.added
        ],
        "normalizer": None,
        "pre_tokenizer": _BYTE_LEVEL,
        "post_processor": None,
        "decoder": _BYTE_LEVEL,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": model.whole_words,
            "vocab": vocabulary,
            "merges": [f"{spelling[left]} {spelling[right]}" for left, right in model.pairs()],
        },
    }


def _from_document(document: dict[str, Any], path: Path) -> Tokenizer:
    model = document["model"]
    _require(path, "model.type", model.get("type"), ("BPE",))
    _require(path, "normalizer", document.get("normalizer"), (None,))
    for field in ("dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback"):
        _require(path, f"model.{field}", model.get(field) or None, (None,))
    for part in ("pre_tokenizer", "decoder"):
        _require(path, f"{part}.type", (document.get(part) or {}).get("type"), ("ByteLevel",))
    _require(path, "pre_tokenizer.use_regex", document["pre_tokenizer"].get("use_regex", True), (True,))
    _require(path, "pre_tokenizer.add_prefix_space", document["pre_tokenizer"].get("add_prefix_space", True), (False,))
    added = []
    for token in document.get("added_tokens", []):
        for field in ("single_word", "lstrip", "rstrip"):
            _require(path, f"{field} of the added token {token['content']!r}", token.get(field, False), (False,))
        added.append(AddedToken(token["id"], token["content"], token["special"]))
    return _build(model["vocab"], model["merges"], added, path, bool(model.get("ignore_merges")))


def _from_vocab_and_merges(vocab: Path, merges: Path) -> Tokenizer:
    vocabulary = _read_json(vocab)
    if not merges.is_file():
        raise FileNotFoundError(f"{merges} is not there; the merges.txt that belongs to {vocab.name} is needed.")
    pairs = [line for line in merges.read_text(encoding="utf-8").split("\n") if line and not line.startswith("#version")]
    added = [AddedToken(vocabulary[name], name, special=True) for name in ("<|endoftext|>",) if name in vocabulary]
    return _build(vocabulary, pairs, added, merges)


def _build(vocab: dict[str, int], pairs: list, added: list[AddedToken], path: Path, whole_words: bool = False) -> Tokenizer:
    """The tokenizer of a vocabulary and merges as Hugging Face spells them."""
    names = {token.content for token in added}
    try:
        vocabulary = {id: to_bytes(spelling) for spelling, id in vocab.items() if spelling not in names}
        if len(vocabulary) + len(names & vocab.keys()) < len(vocab):
            raise ValueError("two tokens of the vocabulary share an id.")
        merges = []
        for rank, pair in enumerate(pairs):
            parts = pair.split(" ") if isinstance(pair, str) else pair
            if len(parts) != 2 or not all(part in vocab for part in parts):
                raise ValueError(f"merge {rank} is {pair!r}, which is not a pair of tokens of the vocabulary.")
            merges.append((vocab[parts[0]], vocab[parts[1]]))
        return Tokenizer(ByteLevelBPE.from_merges(vocabulary, merges, whole_words), added)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there; a tokenizer.json, or a folder that holds one, is needed.")
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not whole JSON ({error}); it may be truncated. Copy it again.") from None
    if not isinstance(document, dict):
        raise ValueError(f"{path} holds a JSON {type(document).__name__}; a tokenizer.json holds an object.")
    return document


def _require(path: Path, field: str, value: object, known: tuple) -> None:
    if value not in known:
        raise ValueError(f"{path}: {field} is {value!r}; what is read here is {' or '.join(map(repr, known))}.")
