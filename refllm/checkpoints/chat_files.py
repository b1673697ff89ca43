"""What a checkpoint says about conversations: its chat templates, the special tokens these write, and what ends an answer."""

from pathlib import Path
from typing import Any, NamedTuple

from refllm.checkpoints import gguf_file, json_file
from refllm.tokenizer import Tokenizer, chat_template

GENERATION, CONFIG = "generation_config.json", "config.json"


class ChatFiles(NamedTuple):
    """A checkpoint's part in a conversation."""

    templates: dict[str, str]  # by name
    variables: dict[str, str]  # bos_token, eos_token and so on, as templates know them
    ends: frozenset[int]  # ids that end an answer


def read(path: str | Path, tokenizer: Tokenizer) -> ChatFiles:
    """What the files of a checkpoint say, a Hugging Face folder's or a GGUF file's; other files say nothing.

    Raises ValueError for a file that does not hold what it should.
    """
    path = Path(path)
    own = frozenset() if tokenizer.eos is None else frozenset({tokenizer.eos})
    if path.is_dir():
        variables = chat_template.special_tokens(path)
        ends = own | _ends(path / GENERATION) | _ends(path / CONFIG) | _spelled(variables.get("eos_token"), tokenizer)
        return ChatFiles(chat_template.read(path), variables, ends)
    with path.open("rb") as file:
        if file.read(4) != b"GGUF":
            return ChatFiles({}, {}, own)
    metadata = gguf_file.read(path).metadata
    ends = own | {int(metadata[key]) for key in ("tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id") if key in metadata}
    template = metadata.get("tokenizer.chat_template")
    return ChatFiles({chat_template.DEFAULT: template} if isinstance(template, str) else {}, {}, ends)


def _spelled(end: str | None, tokenizer: Tokenizer) -> frozenset[int]:
    """The id of an added token, where there is one spelled so."""
    return frozenset(token.id for token in tokenizer.added if token.content == end)


def _ends(path: Path) -> frozenset[int]:
    """The ids in a file's eos_token_id, one or a list."""
    given: Any = json_file.read_object(path).get("eos_token_id") if path.is_file() else None
    ids = given if isinstance(given, list) else [] if given is None else [given]
    if not all(type(id) is int for id in ids):
        raise ValueError(f"{path} has eos_token_id={given!r}; it must be a whole number, or a list of them.")
    return frozenset(ids)
