"""The tokenizer in a GGUF file's metadata: SentencePiece's BPE ("llama") or byte-level BPE ("gpt2").

tokenizer.ggml.tokens are the spellings in order of id, token_type what each is. SentencePiece's have scores, byte-level ones
merges ("Ġt he") and the name of the pattern that cuts a text into words.
"""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from refllm.tokenizer import AddedToken, Template, Tokenizer
from refllm.tokenizer.byte_level import to_bytes
from refllm.tokenizer.byte_level_bpe import ByteLevelBPE
from refllm.tokenizer.normalizers import Form, Normalizer
from refllm.tokenizer.sentence_piece import ESCAPED_SPACE, SentencePieceBPE, merges_by_score
from refllm.tokenizer.words.patterns import GPT2, LLAMA3, O200K, QWEN2

LONGEST = 1024  # characters of a token; merges are found by cutting each at every place
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)  # token_type, as SentencePiece numbers them
PATTERNS: dict[str, str | tuple[str, ...]] = {
    "gpt-2": GPT2,
    "gpt2": GPT2,
    "phi-2": GPT2,
    "mpt": GPT2,
    "olmo": GPT2,
    "smollm": (r"\p{N}", GPT2),
    "llama3": LLAMA3,
    "llama-v3": LLAMA3,
    "llama-bpe": LLAMA3,
    "smaug-bpe": LLAMA3,
    "qwen2": QWEN2,
    "deepseek-r1-qwen": QWEN2,
    "gpt-4o": O200K,
}
WHOLE_WORDS = ("llama3", "llama-v3", "llama-bpe")  # whose words are looked up before they are built by merges


def read_tokenizer(metadata: Mapping[str, Any], path: Path) -> Tokenizer | None:
    """The tokenizer of a file; None where it has none, or, with a warning, one that is not known or not whole."""
    if "tokenizer.ggml.model" not in metadata:
        return None
    try:
        return _tokenizer(_Metadata(metadata))
    except ValueError as error:
        warnings.warn(f"the model in {path} is loaded without its tokenizer: {error}", stacklevel=4)
        return None


class _Metadata:
    """The fields of a tokenizer, checked as they are asked for."""

    def __init__(self, fields: Mapping[str, Any]):
        self.fields = fields
        self.tokens = self.list_of("tokens", str)
        types = self.list_of("token_type", int, len(self.tokens)) if "tokenizer.ggml.token_type" in fields else None
        self.types = types or [NORMAL] * len(self.tokens)

    def get(self, name: str, kind: type, default: Any = None) -> Any:
        """A field, or the default where there is none. Raises ValueError for one of another type."""
        value = self.fields.get(f"tokenizer.ggml.{name}", default)
        if value is not default and type(value) is not kind:
            raise ValueError(f"tokenizer.ggml.{name} is a {type(value).__name__}; it must be {kind.__name__}.")
        return value

    def list_of(self, name: str, kind: type, length: int | None = None) -> list[Any]:
        """A list. Raises ValueError where there is none, or one of another type or length."""
        value = self.fields.get(f"tokenizer.ggml.{name}")
        values = value.tolist() if isinstance(value, np.ndarray) else value
        if not isinstance(values, list) or not all(type(v) is kind for v in values) or length not in (None, len(values)):
            wanted = f"{'' if length is None else f'{length} '}{kind.__name__} values"
            raise ValueError(f"tokenizer.ggml.{name} is not the list of {wanted} that it must be.")
        return values


def _tokenizer(given: _Metadata) -> Tokenizer:
    kind = given.get("model", str)
    if (longest := max(map(len, given.tokens), default=0)) > LONGEST:
        raise ValueError(f"tokenizer.ggml.tokens has one of {longest} characters; at most {LONGEST} are read.")
    if kind not in ("llama", "gpt2"):
        raise ValueError(f"tokenizer.ggml.model is {kind!r}; 'llama' and 'gpt2' can be read.")
    model = _sentence_piece(given) if kind == "llama" else _byte_level(given)
    special = (UNKNOWN, CONTROL) if kind == "llama" else (UNKNOWN, CONTROL, USER_DEFINED)
    added = [
        AddedToken(id, text, special=type_ != USER_DEFINED)
        for id, (text, type_) in enumerate(zip(given.tokens, given.types, strict=True))
        if type_ in special
    ]
    bos, eos = (given.get(f"{end}_token_id", int) for end in ("bos", "eos"))
    before = (bos,) if bos is not None and given.get("add_bos_token", bool, kind == "llama") else ()
    behind = (eos,) if eos is not None and given.get("add_eos_token", bool, False) else ()
    composed = Normalizer((Form("NFC"),)) if given.get("pre", str) == "qwen2" else None
    return Tokenizer(model, added, bos, eos, composed, Template(before, behind))


def _sentence_piece(given: _Metadata) -> SentencePieceBPE:
    scores = given.list_of("scores", float, len(given.tokens))
    of_type = {kind: [id for id, type_ in enumerate(given.types) if type_ == kind] for kind in range(1, 7)}
    bytes_by_value = {given.tokens[id]: id for id in of_type[BYTE]}
    byte_ids = [bytes_by_value[name] for name in (f"<0x{byte:02X}>" for byte in range(256)) if name in bytes_by_value]
    if len(byte_ids) != len(of_type[BYTE]):
        raise ValueError(f"{len(of_type[BYTE])} tokens are bytes, but only {len(byte_ids)} are spelled as <0x00> to <0xFF>.")
    texts = {id: given.tokens[id].replace(ESCAPED_SPACE, " ") for kind in (NORMAL, USER_DEFINED, UNUSED) for id in of_type[kind]}
    merges = merges_by_score({id: texts[id] for id in of_type[NORMAL]}, dict(enumerate(scores)))
    prefix = " " if given.get("add_space_prefix", bool, True) else ""
    unknown = of_type[UNKNOWN][0] if of_type[UNKNOWN] else None
    return SentencePieceBPE(texts, merges, byte_ids, of_type[USER_DEFINED], prefix, unknown)


def _byte_level(given: _Metadata) -> ByteLevelBPE:
    pre = given.get("pre", str, "gpt-2")
    if pre not in PATTERNS:
        raise ValueError(f"tokenizer.ggml.pre is {pre!r}, a way to cut words that is not known; {', '.join(PATTERNS)} are.")
    ids = {text: id for id, (text, type_) in enumerate(zip(given.tokens, given.types, strict=True)) if type_ in (NORMAL, UNUSED)}
    pairs = []
    for merge in given.list_of("merges", str):
        left, _, right = merge.partition(" ")
        if left not in ids or right not in ids:
            raise ValueError(f"the merge {merge!r} is not of two tokens.")
        pairs.append((ids[left], ids[right]))
    vocabulary = {id: to_bytes(text) if given.types[id] == NORMAL else text.encode() for text, id in ids.items()}
    return ByteLevelBPE.from_merges(vocabulary, pairs, PATTERNS[pre], pre in WHOLE_WORDS)
