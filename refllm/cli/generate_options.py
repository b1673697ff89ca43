"""The options of `refllm generate` beside those of sampling, and which of them exclude one another."""

from collections.abc import Mapping
from typing import Any

from refllm.cli.option_table import Option, flag
from refllm.cli.sampling_options import SAMPLING

INPUT = {
    "file": Option(list[str], "A text to continue; *.jsonl: an object a line.", metavar="file"),
    "lines": Option(bool, "Files and the pipe hold a prompt a line."),
    "jsonl": Option(bool, "… an object a line; answers are such, too."),
    "overflow": Option(str, "Prompts too long: error, keep-end, keep-start.", metavar="way"),
    "tokenizer": Option(str, "Its file, where the model brings none."),
    "backend": Option(str, "numpy, mlx, cupy or another installed."),
    "dtype": Option(str, "float32, float64, …; the file's if not given."),
}
TEXT = {
    "max_tokens": Option(int, "Tokens to write; 200, or what fits."),
    "stop": Option(list[str], "End before this text; repeatable.", metavar="text"),
    "n": Option(int, "Samples of each prompt.", 1),
    "logprobs": Option(int, "With --json: log p of tokens and k likeliest.", metavar="k"),
}
OUTPUT = {
    "json": Option(bool, "A JSON object a line for each text."),
    "stats": Option(bool, "How fast it goes, and the floor."),
    "echo": Option(bool, "Write the prompt before its text.", True),
    "rows": Option(int, "Texts decoded together.", 8),
    "int8_cache": Option(bool, "Keep keys and values in int8."),
}
SEARCH = {
    "beams": Option(int, "Search the likeliest text along n beginnings."),
    "length_penalty": Option(float, "Above 0 for longer texts.", 1.0),
    "groups": Option(int, "Groups of beams that keep apart."),
    "diversity": Option(float, "Nats that a token of other groups costs."),
    "contrastive_k": Option(int, "Contrastive search among the n likeliest."),
    "alpha": Option(float, "… weight of being unlike the text.", 0.6),
}
FORM = {
    "regex": Option(str, "The text must match this.", metavar="regex"),
    "json_schema": Option(str, "… be JSON of the schema in this file.", metavar="file"),
    "choices": Option(list[str], "… be one of several; to be repeated.", metavar="text"),
}
SPECULATION = {
    "draft": Option(str, "A smaller model that proposes tokens.", metavar="model"),
    "lookup": Option(int, "Propose what followed the last n tokens before.", metavar="n"),
    "proposals": Option(int, "Tokens proposed at a time.", 4),
}
PANELS = (
    ("Input", INPUT),
    ("Text", TEXT),
    ("Output", OUTPUT),
    ("Sampling", SAMPLING),
    ("Form", FORM),
    ("Search", SEARCH),
    ("Speculation", SPECULATION),
)
LINE = SAMPLING | TEXT | FORM | {"logit_bias": Option(dict, ""), "json_schema": Option(dict, "")}
"""What a line of JSON may set for itself."""


def check_together(given: Mapping[str, Any]) -> None:
    """Raise ValueError for options that do nothing beside one another, or where one lacks what it belongs to."""
    for name, others in EXCLUDED.items():
        too = [flag(other) for other in others if is_given(given, other)]
        if is_given(given, name) and too:
            raise ValueError(f"{flag(name)} excludes {', '.join(too)}: {WHY[name]}.")
    for name, needed in NEEDED.items():
        if is_given(given, name) and not any(is_given(given, other) for other in needed):
            raise ValueError(f"{flag(name)} belongs to {' or '.join(map(flag, needed))}, which is not given.")


def is_given(given: Mapping[str, Any], name: str) -> bool:
    """Whether an option was given, and is not off."""
    value = given.get(name)
    return value is not None and value is not False


ALONE = ("rows", "logprobs", "int8_cache", *FORM)  # what only the usual way of writing knows
WHY = {
    "beams": "a search draws nothing, and finds its tokens all at once",
    "contrastive_k": "a search draws nothing",
    "draft": "with drafts one text is written at a time",
    "lookup": "with drafts one text is written at a time",
    "regex": "a text has one form",
    "json_schema": "a text has one form",
    "lines": "a line is a prompt or a JSON object",
}
EXCLUDED = {
    "beams": (*SAMPLING, *SPECULATION, "contrastive_k", "alpha", "stats", *ALONE),
    "contrastive_k": (*SAMPLING, *SPECULATION, "n", *ALONE),
    "draft": ("lookup", "n", *ALONE),
    "lookup": ("n", *ALONE),
    "regex": ("json_schema", "choices"),
    "json_schema": ("choices",),
    "lines": ("jsonl",),
}
NEEDED = {
    "length_penalty": ("beams",),
    "groups": ("beams",),
    "diversity": ("groups",),
    "alpha": ("contrastive_k",),
    "proposals": ("draft", "lookup"),
}
"""What an option excludes and why, and what it needs one of; the reason is that of the excluding option."""
