"""Chat templates: a conversation as the one text that a model was trained to read, written by Jinja programs of checkpoints.

Templates are strangers' code. They run in Jinja's sandbox, see plain data only, and have what Hugging Face transformers gives
them: loop controls, the tag `generation`, the filter `tojson`, `raise_exception` and `strftime_now`. The text is that of
`apply_chat_template`. Needs the package jinja2 (the extra `chat`).
"""

import functools
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from types import ModuleType
from typing import Any

from refllm.tokenizer.formats.hugging_face_parts import read_json

Message = Mapping[str, Any]  # "role" and "content", and what else the template reads

DEFAULT = "default"  # the name of the template that is used where none is asked for
FILE, MORE, CONFIG = "chat_template.jinja", "additional_chat_templates", "tokenizer_config.json"
SPECIAL = tuple(f"{kind}_token" for kind in ("bos", "eos", "unk", "sep", "pad", "cls", "mask"))
REASONING = ("reasoning_content", "thinking", "reasoning")  # names for what a model thought before it answered


def read(folder: str | Path) -> dict[str, str]:
    """The chat templates of a folder by name; none where it has none.

    They are chat_template.jinja and the files of additional_chat_templates or, where there is neither, chat_template in
    tokenizer_config.json, one text or a list of named ones.
    Raises ValueError for a tokenizer_config.json that holds something else.
    """
    folder = Path(folder)
    found = {path.stem: path.read_text(encoding="utf-8") for path in sorted((folder / MORE).glob("*.jinja"))}
    if (folder / FILE).is_file():
        found = {DEFAULT: (folder / FILE).read_text(encoding="utf-8")} | found
    if found or not (folder / CONFIG).is_file():
        return found
    given = read_json(folder / CONFIG).get("chat_template")
    if given is None or isinstance(given, str):
        return {} if given is None else {DEFAULT: given}
    try:
        named = dict(given) if isinstance(given, dict) else {entry["name"]: entry["template"] for entry in given}
    except (TypeError, KeyError):
        named = {"": None}
    if not all(isinstance(text, str) for text in named.values()):
        raise ValueError(f"{folder / CONFIG} has a chat_template that is neither a text nor a list of names and templates.")
    return named


def choose(templates: Mapping[str, str], name: str | None = None) -> str:
    """The template of that name, or the one that is used where none is named. Raises ValueError where there is none."""
    names = ", ".join(sorted(templates))
    if not templates:
        raise ValueError("the model has no chat template; name a file that holds one, or continue plain text instead.")
    if name is None and len(templates) == 1:
        return next(iter(templates.values()))
    if (name or DEFAULT) not in templates:
        lacks = "no default among its chat templates" if name is None else f"no chat template {name!r}"
        raise ValueError(f"the model has {lacks}; choose one of {names}.")
    return templates[name or DEFAULT]


def special_tokens(folder: str | Path) -> dict[str, str]:
    """The spellings that templates know as bos_token, eos_token and so on, of a folder's files."""
    found: dict[str, str] = {}
    for name in ("special_tokens_map.json", CONFIG):
        if (Path(folder) / name).is_file():
            fields = read_json(Path(folder) / name)
            given = {kind: fields.get(kind) for kind in SPECIAL}
            spelled = {kind: token.get("content") if isinstance(token, dict) else token for kind, token in given.items()}
            found |= {kind: token for kind, token in spelled.items() if isinstance(token, str)}
    return found


def render(
    messages: Sequence[Message],
    template: str,
    add_generation_prompt: bool = False,
    *,
    tools: Sequence[Any] | None = None,
    documents: Sequence[Any] | None = None,
    now: datetime | None = None,
    **variables: Any,
) -> str:
    """The text of a conversation.

    messages: from the first to the last; a key whose value is None is as if it were not there
    add_generation_prompt: whether the text ends with what comes before an answer
    tools, documents: what the model may use, if the template tells it    now: the time, for templates that tell it
    variables: bos_token, eos_token and whatever else the template reads
    Raises ValueError for a template that is no Jinja program, or that refuses the conversation, and for an empty conversation;
    TypeError for messages that are not plain data; ImportError where jinja2 is missing.
    """
    if not messages:
        raise ValueError("the conversation is empty; a chat template needs at least one message.")
    compiled, moment = _compiled(template), now or datetime.now()
    given = {name: plain(value) for name, value in variables.items()}
    given |= {"messages": [_message(message) for message in messages], "tools": plain(tools), "documents": plain(documents)}
    try:
        return compiled.render(add_generation_prompt=add_generation_prompt, strftime_now=moment.strftime, **given)
    except (
        _sandbox().TemplateError,
        TypeError,
        ValueError,
        LookupError,
        AttributeError,
        ArithmeticError,
        RecursionError,
    ) as error:
        raise ValueError(f"the chat template refuses this conversation: {error or type(error).__name__}") from error


def plain(value: Any) -> Any:
    """The same data as new lists, dicts, texts and numbers, which is all that a template may see. Raises TypeError for others."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str.__str__(value)  # of an Enum the text, not the name
    if isinstance(value, int | float):
        return int.__int__(value) if isinstance(value, int) else float.__float__(value)
    if isinstance(value, Mapping):
        return {plain(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    raise TypeError(f"a message holds {type(value).__name__}; chat templates take texts, numbers, lists and dicts of them.")


def _message(message: Message) -> dict[str, Any]:
    """A message as templates see it: without what is None, and with its reasoning under the names that templates read."""
    if not isinstance(message, Mapping):
        raise TypeError(f"a message is {type(message).__name__}; it must be a dict such as {{'role': 'user', 'content': 'Hi'}}.")
    known = {name: value for name, value in plain(message).items() if value is not None}
    reasoning = next((known[name] for name in REASONING if name in known), None)
    return known if reasoning is None else {"thinking": reasoning, **known, "reasoning_content": reasoning}


@functools.lru_cache(maxsize=32)
def _compiled(template: str) -> Any:
    """The program of a template. Raises ValueError that names the line where it is none."""
    sandbox = _sandbox()
    try:
        return sandbox.ENVIRONMENT.from_string(template)
    except sandbox.TemplateSyntaxError as error:
        raise ValueError(f"the chat template is no Jinja program: {error.message} (line {error.lineno}).") from error


def _sandbox() -> ModuleType:
    """The module that knows jinja2. Raises ImportError that says how to get it."""
    try:
        from refllm.tokenizer import chat_sandbox
    except ImportError as error:
        raise ImportError(
            "chat templates need the package jinja2, 3.1.6 or later; install it with `pip install 'refllm[chat]'`."
        ) from error
    return chat_sandbox
