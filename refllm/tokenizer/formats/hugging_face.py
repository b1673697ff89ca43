"""Hugging Face's files: tokenizer.json read and written, vocab.json with merges.txt read."""

import json
from pathlib import Path
from typing import Any

from refllm.atomic import write_atomically
from refllm.tokenizer.added_tokens import AddedToken
from refllm.tokenizer.byte_level_bpe import ByteLevelBPE
from refllm.tokenizer.formats import (
    hugging_face_byte_level,
    hugging_face_sentence_piece,
    hugging_face_unigram,
    hugging_face_word_piece,
)
from refllm.tokenizer.formats.hugging_face_normalizers import describe_normalizer, read_normalizer
from refllm.tokenizer.formats.hugging_face_parts import NOT_BUILT_SO, read_json, require
from refllm.tokenizer.formats.hugging_face_post_processor import describe_post_processor, read_post_processor
from refllm.tokenizer.normalizers import Normalizer
from refllm.tokenizer.pre_split import PreSplit
from refllm.tokenizer.sentence_piece import SentencePieceBPE
from refllm.tokenizer.tokenizer import Tokenizer
from refllm.tokenizer.unigram import Unigram
from refllm.tokenizer.word_piece import WordPiece
from refllm.tokenizer.words.bert import NormalizedByBert

CONFIG = "tokenizer_config.json"
FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")


def load(path: Path, document: dict[str, Any] | None = None) -> Tokenizer:
    """Open a tokenizer.json, with the tokenizer_config.json beside it if there is one, which tells bos and eos.

    document: the file's content, where it has been read
    Raises ValueError for a file that is damaged, or has a part that is not known.
    """
    document = read_json(path) if document is None else document
    if not is_one(document):
        raise ValueError(f"{path} is no tokenizer.json: it has no 'model'. For a vocab.json pass its merges.txt too: merges=….")
    config = read_json(path.with_name(CONFIG)) if path.with_name(CONFIG).is_file() else {}
    try:
        return _from_document(document, config)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    except NOT_BUILT_SO as error:
        raise ValueError(f"{path} is not built as a tokenizer.json ({type(error).__name__}: {error}); write it again.") from None


def is_one(document: dict[str, Any]) -> bool:
    """Whether the content of a JSON file is that of a tokenizer.json; a vocab.json has ids only, one of "model" among them."""
    return "model" in document and type(document["model"]) is not int


def load_vocab_and_merges(vocab: Path, merges: Path) -> Tokenizer:
    """Open GPT-2's vocab.json with its merges.txt. Raises FileNotFoundError and ValueError as `load` does."""
    for path in (vocab, merges):
        if not path.is_file():
            raise FileNotFoundError(f"{path} is not there; vocab.json and merges.txt belong together.")
    ids = read_json(vocab)
    try:
        lines = merges.read_bytes().decode("utf-8").split("\n")
        pairs = [line.rstrip("\r") for line in lines if line.rstrip("\r") and not line.startswith("#version")]
        added = {name: ids[name] for name in ("<|endoftext|>",) if name in ids}
        model = hugging_face_byte_level.build({"vocab": ids, "merges": pairs}, added)
        return Tokenizer(model, [AddedToken(id, name, special=True) for name, id in added.items()])
    except ValueError as error:
        raise ValueError(f"{vocab} with {merges.name}: {error}") from None
    except NOT_BUILT_SO as error:
        raise ValueError(f"{vocab} with {merges.name} is not built so ({type(error).__name__}: {error}); copy both.") from None


def save(tokenizer: Tokenizer, path: Path) -> None:
    """Write tokenizer.json at path, or in the folder path; the old file stays whole until the new one is.

    Where neither its names nor its template tell which tokens begin and end a document, a tokenizer_config.json beside it does.
    """
    if path.is_dir():
        path = path / "tokenizer.json"
    document = json.dumps(to_document(tokenizer), ensure_ascii=False, indent=1).encode()
    ends = _ends(tokenizer)
    write_atomically(path, document)
    if ends:
        config = json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"} | ends, ensure_ascii=False, indent=2)
        write_atomically(path.with_name(CONFIG), config.encode() + b"\n")


def to_document(tokenizer: Tokenizer) -> dict[str, Any]:
    """The content of tokenizer.json. Raises ValueError for a model that it cannot hold."""
    model, added = tokenizer.model, [(token.content, token.id) for token in tokenizer.added]
    spelled = {id: content for content, id in added}
    parts: dict[str, Any]
    if isinstance(model, WordPiece):
        parts = hugging_face_word_piece.describe(model, added)
    elif isinstance(model, Unigram):
        parts = hugging_face_unigram.describe(model, added, tokenizer.normalizer)
    elif isinstance(model, SentencePieceBPE) and tokenizer.normalizer:
        raise ValueError("a tokenizer.json of a SentencePiece BPE that changes its text first is not written here.")
    elif isinstance(model, SentencePieceBPE):
        parts = hugging_face_sentence_piece.describe(model, added)
    elif isinstance(model, (ByteLevelBPE, PreSplit)):
        parts = {"normalizer": describe_normalizer(tokenizer.normalizer)} | hugging_face_byte_level.describe(model, added)
    else:
        raise ValueError(f"a tokenizer.json of a {type(model).__name__} model is not written here.")
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [_describe_token(token) for token in sorted(tokenizer.added, key=lambda token: token.id)],
        "post_processor": describe_post_processor(
            tokenizer.template, lambda id: spelled.get(id) or tokenizer.bytes_of(id).decode("utf-8", "replace")
        ),
        **parts,
    }


def _from_document(document: dict[str, Any], config: dict[str, Any]) -> Tokenizer:
    added = list(map(_read_token, document.get("added_tokens") or []))
    ids = {token.content: token.id for token in added}
    parts = _module(document)
    reads_normalizer = parts in (hugging_face_byte_level, hugging_face_unigram)
    normalizer = read_normalizer(document.get("normalizer")) if reads_normalizer else None
    template = read_post_processor(document.get("post_processor"))
    bos, eos = (ids.get(_content(config.get(f"{name}_token"))) for name in ("bos", "eos"))
    if bos == eos and not config.get("add_bos_token"):
        bos = None  # GPT-2's config names its one special token as everything; nothing puts it before a text
    model = parts.read(document, ids)
    if parts is hugging_face_sentence_piece:
        _check_normalized(added, read_normalizer(document.get("normalizer")))
    if isinstance(model, WordPiece) and any(token.normalized for token in added):
        normalizer = Normalizer((NormalizedByBert(model.rules),))  # the model's own rules change what is normalized no more
    return Tokenizer(model, added, bos, eos, normalizer, template)


def _check_normalized(added: list[AddedToken], normalizer: Normalizer | None) -> None:
    """Raise ValueError for a token that is looked for in normalized text as another than it is written.

    Special ones are not: transformers looks for those as they stand, whatever an old file of Llama says.
    """
    for token in added:
        if token.normalized and not token.special and normalizer and normalizer.apply(token.content) != token.content:
            changed = normalizer.apply(token.content)
            raise ValueError(f"normalized of the added token {token.content!r} is True, which makes it {changed!r}; write False.")


def _module(document: dict[str, Any]) -> Any:
    """What reads the model of a tokenizer.json."""
    model = document["model"]
    kind = model.get("type", "BPE" if "merges" in model else None)
    require("model.type", kind, "BPE", "Unigram", "WordPiece")
    if kind != "BPE":
        return hugging_face_unigram if kind == "Unigram" else hugging_face_word_piece
    spaced = model.get("byte_fallback") or document.get("pre_tokenizer") is None
    return hugging_face_sentence_piece if spaced else hugging_face_byte_level


def _read_token(token: dict[str, Any]) -> AddedToken:
    flags = {name: token.get(name, False) for name in FLAGS}
    if type(token["id"]) is not int or not isinstance(token["content"], str):
        raise ValueError(
            f"the added token {token['content']!r} has the id {token['id']!r}; a text and a whole number are needed."
        )
    if wrong := next((name for name, value in flags.items() if not isinstance(value, bool)), None):
        raise ValueError(f"{wrong} of the added token {token['content']!r} is {flags[wrong]!r}; it is true or false.")
    return AddedToken(token["id"], token["content"], **flags)


def _describe_token(token: AddedToken) -> dict[str, Any]:
    return {"id": token.id, "content": token.content} | {name: getattr(token, name) for name in FLAGS}


def _ends(tokenizer: Tokenizer) -> dict[str, Any]:
    """What a tokenizer_config.json must say of bos and eos; nothing where they are the usual ones."""
    if (tokenizer.bos, tokenizer.eos) == (tokenizer.usual_bos, tokenizer.usual_eos):
        return {}
    contents = {token.id: token.content for token in tokenizer.added}
    ends = {f"{name}_token": contents.get(id) for name, id in (("bos", tokenizer.bos), ("eos", tokenizer.eos)) if id is not None}
    if None in ends.values():
        raise ValueError("bos or eos is the id of no added token; a tokenizer.json cannot hold that.")
    return ends | ({"add_bos_token": True} if tokenizer.bos == tokenizer.eos is not None else {})


def _content(token: Any) -> str:
    """The text of a token in a tokenizer_config.json, a string or an object that holds it; "" for none."""
    content = token.get("content") if isinstance(token, dict) else token
    return content if isinstance(content, str) else ""
