"""Mistral's tekken.json (mistral_common 1.8, tekken.py): the ranks of a byte-level BPE, the pattern, and the special tokens.

    {"config": {"pattern", "default_vocab_size", "default_num_special_tokens", "version"},
     "vocab": [{"rank", "token_bytes" in base64, "token_str"}], "special_tokens": [{"rank", "token_str", "is_control"}]}

The special tokens have the first ids; a token's id is its rank behind them. The vocabulary is cut to default_vocab_size in all.
Special tokens that the file does not name are <SPECIAL_20>, <SPECIAL_21> …; files up to version v7 name none.
"""

import base64
from pathlib import Path
from typing import Any

from refllm.tokenizer.added_tokens import AddedToken
from refllm.tokenizer.byte_level_bpe import ByteLevelBPE
from refllm.tokenizer.formats.hugging_face_parts import NOT_BUILT_SO, read_json
from refllm.tokenizer.model import MOST_IDS
from refllm.tokenizer.rank_merges import RankMerges
from refllm.tokenizer.tokenizer import Tokenizer

OLD_SPECIAL = (
    *("<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]"),
    *("[TOOL_RESULTS]", "[/TOOL_RESULTS]", "[TOOL_CALLS]", "[IMG]", "<pad>", "[IMG_BREAK]", "[IMG_END]"),
    *("[PREFIX]", "[MIDDLE]", "[SUFFIX]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[TOOL_CONTENT]"),
)
OLD_VERSIONS = ("v1", "v2", "v3", "v7")


def load(path: Path, document: dict[str, Any] | None = None) -> Tokenizer:
    """Open a tekken.json. document: the file's content, where it has been read. Raises ValueError for a file that is damaged."""
    document = read_json(path) if document is None else document
    try:
        return _tokenizer(document)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    except NOT_BUILT_SO as error:
        raise ValueError(f"{path} is not built as a tekken.json ({type(error).__name__}: {error}); copy it again.") from None


def is_one(document: dict[str, Any]) -> bool:
    """Whether the content of a JSON file is that of a tekken.json."""
    return isinstance(document.get("config"), dict) and isinstance(document.get("vocab"), list)


def _tokenizer(document: dict[str, Any]) -> Tokenizer:
    config = document["config"]
    n_special, size = (_count(config, field) for field in ("default_num_special_tokens", "default_vocab_size"))
    entries = document["vocab"][: size - n_special]
    if not 0 < n_special < size or len(entries) < size - n_special:
        raise ValueError(f"it has {len(document['vocab'])} tokens; its config says {size}, of them {n_special} special.")
    vocabulary = {}
    for rank, entry in enumerate(entries):
        if entry["rank"] != rank:
            raise ValueError(f"token {rank} has the rank {entry['rank']!r}; ranks count up from 0.")
        vocabulary[n_special + rank] = base64.b64decode(entry["token_bytes"], validate=True)
    names = _special_names(document, config.get("version"), n_special)
    model = ByteLevelBPE(vocabulary, RankMerges(vocabulary), config["pattern"], whole_words=True)
    added = [AddedToken(id, name, special=True) for id, name in enumerate(names)]
    return Tokenizer(model, added)


def _special_names(document: dict[str, Any], version: Any, n_special: int) -> list[str]:
    """The special tokens in order of id, those without a name numbered."""
    listed = document.get("special_tokens")
    if listed is None and version not in OLD_VERSIONS:
        raise ValueError(f"it has no special_tokens, which version {version!r} needs; copy the file again.")
    names = list(OLD_SPECIAL) if listed is None else [token["token_str"] for token in listed]
    if listed is not None and [token["rank"] for token in listed] != list(range(len(listed))):
        raise ValueError("its special tokens do not count up from 0.")
    if not all(isinstance(name, str) for name in names) or len(names) > n_special:
        raise ValueError(f"its special_tokens are {len(names)}, not all with a text; its config says {n_special}.")
    return names + [f"<SPECIAL_{id}>" for id in range(len(names), n_special)]


def _count(config: dict[str, Any], field: str) -> int:
    count = config[field]
    if type(count) is not int or not 0 <= count < MOST_IDS:
        raise ValueError(f"config.{field} is {count!r}; a whole number from 0 up, below {MOST_IDS:,}, is needed.")
    return count
