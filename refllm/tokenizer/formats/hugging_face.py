"""Hugging Face's files: tokenizer.json read and written, vocab.json with merges.txt read."""

import json
from pathlib import Path
from typing import Any

from refllm.atomic import write_atomically
from refllm.tokenizer.byte_level_bpe import ByteLevelBPE
from refllm.tokenizer.formats import hugging_face_byte_level, hugging_face_sentence_piece
from refllm.tokenizer.formats.hugging_face_parts import require
from refllm.tokenizer.sentence_piece import SentencePieceBPE
from refllm.tokenizer.tokenizer import AddedToken, Tokenizer


def load(path: Path) -> Tokenizer:
    """Open a tokenizer.json. Raises ValueError for a file that is damaged, or has a part that is not known."""
    document = _read_json(path)
    if "model" not in document:
        raise ValueError(f"{path} is no tokenizer.json: it has no 'model'. For a vocab.json pass its merges.txt too: merges=….")
    try:
        return _from_document(document)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is not built as a tokenizer.json ({type(error).__name__}: {error}); write it again.") from None


def load_vocab_and_merges(vocab: Path, merges: Path) -> Tokenizer:
    """Open GPT-2's vocab.json with its merges.txt. Raises FileNotFoundError and ValueError as `load` does."""
    for path in (vocab, merges):
        if not path.is_file():
            raise FileNotFoundError(f"{path} is not there; vocab.json and merges.txt belong together.")
    ids = _read_json(vocab)
    pairs = [line for line in merges.read_text(encoding="utf-8").split("\n") if line and not line.startswith("#version")]
    added = {name: ids[name] for name in ("<|endoftext|>",) if name in ids}
    try:
        model = hugging_face_byte_level.build({"vocab": ids, "merges": pairs}, added)
    except ValueError as error:
        raise ValueError(f"{vocab} with {merges.name}: {error}") from None
    return Tokenizer(model, [AddedToken(id, name, special=True) for name, id in added.items()])


def save(tokenizer: Tokenizer, path: Path) -> None:
    """Write tokenizer.json at path, or in the folder path; the old file stays whole until the new one is."""
    if path.is_dir():
        path = path / "tokenizer.json"
    write_atomically(path, json.dumps(to_document(tokenizer), ensure_ascii=False, indent=1).encode())


def to_document(tokenizer: Tokenizer) -> dict[str, Any]:
    """The content of tokenizer.json. Raises ValueError for a model that it cannot hold."""
    model, added = tokenizer.model, [(token.content, token.id) for token in tokenizer.added]
    if isinstance(model, SentencePieceBPE):
        parts = hugging_face_sentence_piece.describe(model, added)
    elif isinstance(model, ByteLevelBPE):
        parts = hugging_face_byte_level.describe(model, added)
    else:
        raise ValueError(f"a tokenizer.json of a {type(model).__name__} model is not written here.")
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": token.id, "content": token.content, **flags, "special": token.special} for token in tokenizer.added
        ],
        "post_processor": None,
        **parts,
    }


def _from_document(document: dict[str, Any]) -> Tokenizer:
    require("model.type", document["model"].get("type"), "BPE")
    added = []
    for token in document.get("added_tokens", []):
        for field in ("single_word", "lstrip", "rstrip"):
            require(f"{field} of the added token {token['content']!r}", token.get(field, False), False)
        added.append(AddedToken(token["id"], token["content"], token["special"]))
    ids = {token.content: token.id for token in added}
    spaced = document["model"].get("byte_fallback") or document.get("pre_tokenizer") is None
    parts = hugging_face_sentence_piece if spaced else hugging_face_byte_level
    return Tokenizer(parts.read(document, ids), added)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not whole JSON ({error}); it may be truncated. Copy it again.") from None
    if not isinstance(document, dict):
        raise ValueError(f"{path} holds a JSON {type(document).__name__}; a tokenizer.json holds an object.")
    return document
