"""How many training pairs one sentence gives: each token is predicted from those before it. The vocabulary decides how many.

"I love street food." in words is five tokens; with one that begins the text and one that ends it, six pairs of a context and its
target:

    [begin] → I        [begin] I → love        …        [begin] I love street food . → [end]

The same sentences in several languages are tokenized by every tokenizer, to compare bytes per token.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from refllm.lab.experiment import Report, Result
from refllm.lab.materials import corpus
from refllm.lab.running.pool import each
from refllm.lab.verdict import FAILS, HOLDS, UNDECIDABLE, Claim, Finding
from refllm.tokenizer import Tokenizer, train_bpe

NAME = "pairs"
SUMMARY = {
    "sentence": ("tokenizer", "vocab_size", "tokens", "pairs", "cut"),
    "languages": ("language", "tokenizer", "tokens", "pairs", "bytes_per_token"),
}
SENTENCE = "I love street food."
BEGIN, END = "[begin]", "[end]"
EAST_ASIAN = "\u3040-\u30ff\u3400-\u9fff"  # kana and Han characters
BUILT_IN = ("bytes", "characters", "words")  # tokenizers that learn nothing
HATCHES = ("", "////", "....", "xxxx", "----", "++++", "||||")  # of bars, for print without color

# The same four short sentences everywhere, written for this comparison.
TEXTS = {
    "English": "The child reads a book. It is raining today. Where is the station? I would like some water.",
    "German": "Das Kind liest ein Buch. Heute regnet es. Wo ist der Bahnhof? Ich möchte etwas Wasser.",
    "French": "L'enfant lit un livre. Il pleut aujourd'hui. Où est la gare ? Je voudrais de l'eau.",
    "Spanish": "El niño lee un libro. Hoy llueve. ¿Dónde está la estación? Quisiera un poco de agua.",
    "Greek": "Το παιδί διαβάζει ένα βιβλίο. Σήμερα βρέχει. Πού είναι ο σταθμός; Θα ήθελα λίγο νερό.",
    "Russian": "Ребёнок читает книгу. Сегодня идёт дождь. Где вокзал? Я хотел бы воды.",
    "Chinese": "孩子在看书。今天下雨。车站在哪里？我想要一些水。",
    "Japanese": "子供が本を読んでいます。今日は雨です。駅はどこですか。水をください。",
    "Python": "def area(width, height):\n    return width * height\n\nprint(area(3, 4))\n",
}


@dataclass(frozen=True)
class Settings:
    """The defaults take a few seconds.

    tokenizers: bytes, characters, words, bpe-N (N tokens, learned from the text), or files and folders with a tokenizer
    text: what BPE is trained on, a file or a folder; "" for Python's standard library    n_bytes: of it, at most
    sentence: the one whose pairs are counted
    """

    tokenizers: tuple[str, ...] = ("bytes", "characters", "bpe-512", "bpe-2048", "bpe-8192", "bpe-32768", "words")
    text: str = ""
    n_bytes: int = 10_000_000
    sentence: str = SENTENCE
    executor: str = "processes"

    def __post_init__(self) -> None:
        if not self.sentence.strip():
            raise ValueError(f"sentence={self.sentence!r} has no word to predict.")
        if not self.tokenizers:
            raise ValueError(f"no tokenizer is given; name {', '.join(BUILT_IN)}, bpe-N, or a file or folder with a tokenizer.")
        if twice := [name for name in self.tokenizers if self.tokenizers.count(name) > 1]:
            raise ValueError(f"the tokenizer {twice[0]!r} is given twice; name each once.")
        if self.n_bytes < 1:
            raise ValueError(f"n_bytes={self.n_bytes} must be at least 1: BPE learns from the text's first bytes.")


QUICK = Settings(tokenizers=("bytes", "characters", "bpe-512", "bpe-1024", "words"), n_bytes=300_000)


def pairs(tokens: Sequence[str]) -> list[tuple[tuple[str, ...], str]]:
    """The context and target of each prediction in a text: one more than there are tokens."""
    text = (BEGIN, *tokens, END)
    return [(text[:i], text[i]) for i in range(1, len(text))]


def run(settings: Settings, folder: Path, workers: int, report: Report) -> Result:
    """Tokenize all texts with every tokenizer."""
    tasks = [(re.sub(r"[^0-9A-Za-z-]", "_", name), (name, settings)) for name in settings.tokenizers]
    found = dict(each(cut, tasks, workers, folder / "tokenizers", settings.executor))
    sentence, languages = [], []
    for name, _ in tasks:
        sentence.append(found[name]["sentence"])
        languages.append(found[name]["languages"])
        report(f"{sentence[-1]['tokenizer']}: {sentence[-1]['pairs']} pairs, {sentence[-1]['cut']}")
    by_language = [row for rows in zip(*languages, strict=True) for row in rows]
    return {"tables": {"sentence": sentence, "languages": by_language}, "numbers": {}}


def cut(task: tuple[str, Settings]) -> Result:
    """The sentence's row and the languages' rows for one tokenizer."""
    name, s = task
    split, vocab_size = tokenizer(name, s)
    tokens = split(s.sentence)
    row = {"tokenizer": name, "vocab_size": vocab_size} | counts(tokens, s.sentence) | {"cut": "|".join(tokens)}
    about = {"tokenizer": name, "vocab_size": vocab_size}
    languages = [about | {"language": language} | counts(split(text), text) for language, text in TEXTS.items()]
    return {"sentence": row, "languages": languages}


def counts(tokens: Sequence[str], text: str) -> dict[str, Any]:
    """Tokens, pairs and bytes per token of a text."""
    n_bytes = len(text.encode())
    return {"bytes": n_bytes, "tokens": len(tokens), "pairs": len(pairs(tokens)), "bytes_per_token": n_bytes / len(tokens)}


Split = Callable[[str], list[str]]  # a text to its tokens; bytes that are not valid UTF-8 as \\x..


def tokenizer(name: str, s: Settings) -> tuple[Split, int | None]:
    """A tokenizer by name, and the size of its vocabulary where that is limited. Raises ValueError for an unknown name."""
    if name == "bytes":
        return lambda text: [readable(bytes([byte])) for byte in text.encode()], 256
    if name == "characters":
        return list, None
    if name == "words":
        return words, None
    if learned := re.fullmatch(r"bpe-(\d+)", name):
        text = corpus.load(s.text or None, as_bytes=True)
        found = train_bpe(text.train[: s.n_bytes].tobytes().decode(errors="ignore"), int(learned[1]))
    elif Path(name).exists():
        found = Tokenizer.load(name)
    else:
        raise ValueError(f"{name!r} is no tokenizer; name {', '.join(BUILT_IN)}, bpe-N, or a file or folder that exists.")
    return lambda text: [readable(found.bytes_of(i)) for i in found.encode(text, disallowed_special=())], found.vocab_size


def words(text: str) -> list[str]:
    """Words and punctuation marks: the tokens of a vocabulary of whole words. In scripts without spaces each character is one."""
    return re.findall(rf"[{EAST_ASIAN}]|[^\W{EAST_ASIAN}]+|[^\w\s]", text)


def readable(token: bytes) -> str:
    """A token's bytes as text, those that are not valid UTF-8 as \\x.."""
    return token.decode(errors="backslashreplace")


def figures(result: Result) -> dict[str, Any]:
    """Bytes per token in every language, for each tokenizer."""
    from refllm.lab import plots

    figure, axes = plots.new_figure("", "bytes per token", wide=True)
    rows, names = result["tables"]["languages"], list(TEXTS)
    tokenizers = list(dict.fromkeys(row["tokenizer"] for row in rows))
    width = 0.8 / len(tokenizers)
    for i, tokenizer in enumerate(tokenizers):
        y = [row["bytes_per_token"] for row in rows if row["tokenizer"] == tokenizer]
        x = [at + width * (i - (len(tokenizers) - 1) / 2) for at in range(len(names))]
        style = {"color": plots.COLORS[i % len(plots.COLORS)], "hatch": HATCHES[i % len(HATCHES)], "edgecolor": "white"}
        axes.bar(x, y, width, linewidth=0.5, label=Path(tokenizer).name, **style)
    axes.set_xticks(range(len(names)), names)
    plots.legend(axes, ncols=2)
    return {"bytes_per_token": figure}


def judge_pairs(results: Mapping[str, Any]) -> Finding:
    """Claim 17, of the one sentence. It holds where every tokenizer makes one pair more than it has tokens, and the largest
    vocabulary makes fewer pairs than the smallest. It fails where the largest makes more, or the pairs of a tokenizer are
    not one more than its tokens. It is undecidable where both make as many, or all vocabularies of known size are of one size.
    """
    tables = results[NAME]["tables"]
    rows = tables["sentence"]
    sized = sorted((row for row in rows if row["vocab_size"]), key=lambda row: row["vocab_size"])
    smallest, largest = (sized[0], sized[-1]) if sized else (rows[-1], rows[-1])
    if any(row["pairs"] != row["tokens"] + 1 for row in rows) or largest["pairs"] > smallest["pairs"]:
        verdict = FAILS
    elif largest["pairs"] == smallest["pairs"] or largest["vocab_size"] == smallest["vocab_size"]:
        verdict = UNDECIDABLE
    else:
        verdict = HOLDS
    languages = [row for row in tables["languages"] if row["tokenizer"] == largest["tokenizer"]]
    few, many = (choice(languages, key=lambda row: row["bytes_per_token"]) for choice in (min, max))
    why = (
        "Pairs of the sentence: " + ", ".join(f"{row['tokenizer']} {row['pairs']}" for row in rows) + f"; with "
        f"{largest['tokenizer']} a token is {few['bytes_per_token']:.1f} bytes of {few['language']} and "
        f"{many['bytes_per_token']:.1f} of {many['language']}."
    )
    return Finding(largest["pairs"], None, None, f"pairs with {largest['tokenizer']}", verdict, why)


CLAIMS = (
    Claim(
        number=17,
        statement="One sentence gives many training pairs; the vocabulary decides how many.",
        formula="pairs = tokens + 1, with a token that begins and one that ends; fewer with the largest vocabulary",
        published="",
        needs=(NAME,),
        judge=judge_pairs,
    ),
)
