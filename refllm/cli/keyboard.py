"""`refllm keyboard`: train the n-gram model of a phone keyboard, let it suggest words, judge it."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from refllm.models.keyboard import Keyboard

app = typer.Typer(help="Train a phone keyboard's n-gram model, let it suggest words, judge it.", no_args_is_help=True)

Model = Annotated[Path, typer.Argument(help="A keyboard that `train` wrote, or an ARPA file.", show_default=False)]
Split = Annotated[
    str, typer.Option("--split", help="What a word is: words (letters, digits, ' and - inside) or spaces (as KenLM cuts lines).")
]


@app.command()
def train(
    files: Annotated[
        list[str], typer.Argument(help="UTF-8 texts, folders of them, or - for standard input.", show_default=False)
    ],
    out: Annotated[Path, typer.Option("--out", help="The file to write; as ARPA where it ends in .arpa or .arpa.gz.")],
    order: Annotated[int, typer.Option("--order", help="Words in the longest n-grams.", min=1, max=9)] = 3,
    budget: Annotated[
        str | None, typer.Option("--budget", help="At most so many bytes (10MB, 500kB) or n-grams (1250000 ngrams).")
    ] = None,
    vocab_size: Annotated[int, typer.Option("--vocab-size", help="At most so many words; the others are <unk>.", min=4)] = 65536,
    least: Annotated[int, typer.Option("--min-count", help="A rarer word is <unk>.", min=1)] = 2,
    cut_off: Annotated[
        list[int] | None,
        typer.Option("--cut-off", help="Drop n-grams of order 2 that occur less often; again for order 3 and so on."),
    ] = None,
    smoothing: Annotated[
        str, typer.Option("--smoothing", help="kneser-ney, or stupid: scores that are no probabilities.")
    ] = "kneser-ney",
    split: Split = "words",
    full: Annotated[bool, typer.Option("--float32", help="Store float32 instead of 8 bits a number.")] = False,
) -> None:
    """Count the words of texts and write a keyboard.

    Every line is a sentence. Within a budget the n-grams stay whose loss would change the predictions most.
    """
    import time

    from rich.console import Console

    from refllm.checkpoints import arpa, keyboard_file
    from refllm.cli.figures import duration, size
    from refllm.cli.tokenizer import tell
    from refllm.models import keyboard, pruning, stupid_backoff

    started = time.perf_counter()
    room = bytes_or_ngrams(budget) if budget is not None else None
    as_arpa = out.name.endswith((".arpa", ".arpa.gz"))
    if smoothing not in ("kneser-ney", "stupid"):
        raise ValueError(f"--smoothing {smoothing} is not known; choose kneser-ney or stupid.")
    if split not in keyboard.SPLITS:
        raise ValueError(f"--split {split} is not known; choose {' or '.join(keyboard.SPLITS)}.")
    if as_arpa and smoothing == "stupid":
        raise ValueError("an ARPA file cannot hold stupid backoff; give --out another name, or --smoothing kneser-ney.")
    if as_arpa and room is not None and room[1] == "bytes":
        raise ValueError("a budget in bytes is that of a keyboard's own file; for an ARPA file give it in ngrams.")
    if not out.parent.is_dir():
        raise ValueError(f"--out {out}: the folder {out.parent} is not there; make it first.")
    sentences = [words for line in _lines_of(files) if (words := keyboard.SPLITS[split](line))]
    if not sentences:
        raise ValueError("the texts hold no words; a keyboard learns from words.")
    vocabulary = tuple(keyboard.vocabulary(sentences, least, vocab_size))
    counts = keyboard.counted(sentences, vocabulary, order)
    table = keyboard.kneser_ney(counts) if smoothing == "kneser-ney" else stupid_backoff.from_counts(counts)
    found, occurrences = table.sizes, pruning.dense(counts.occurrences, counts.keys[0], len(vocabulary))
    if cut_off:
        masks = pruning.frequent(occurrences, cut_off)
        table, occurrences = pruning.only(table, masks), pruning.only_numbers(occurrences, masks)
        table = pruning.renormalised(table) if smoothing == "kneser-ney" else table
    if room is not None:
        most, unit = room
        in_bytes = keyboard_file.fits(vocabulary, table, most, not full)
        fits = in_bytes if unit == "bytes" else lambda sizes: sum(sizes) <= most
        if smoothing == "kneser-ney":
            table = pruning.pruned(table, fits, occurrences)
        else:
            table = pruning.fitted(table, fits, [f.astype(float) for f in occurrences[1:]])
    made = keyboard.Keyboard(vocabulary, table, split)
    if as_arpa:
        arpa.write(out, vocabulary, table)
    else:
        keyboard_file.save(out, made, not full)
    n_words = sum(map(len, sentences))
    unknown = int(occurrences[0][0])
    kept = ", ".join(f"{n:,} of {of:,}" for n, of in zip(table.sizes[1:], found[1:], strict=True))
    facts = [
        ("text", f"{n_words:,} words in {len(sentences):,} lines"),
        ("vocabulary", f"{len(vocabulary):,} words; {unknown / n_words:.2%} of the text is outside it"),
        ("n-grams", f"{sum(table.sizes):,}" + (f"; of order 2 and above {kept}" if kept else "")),
        ("time", duration(time.perf_counter() - started)),
        ("written to", f"{out}, {size(out.stat().st_size)}"),
    ]
    tell(Console(highlight=False), facts)


@app.command()
def suggest(
    model: Model,
    text: Annotated[
        str | None, typer.Argument(help="What is typed so far; without it, each line that comes.", show_default=False)
    ] = None,
    k: Annotated[int, typer.Option("-k", help="How many suggestions.", min=1)] = 3,
    split: Split = "words",
    as_json: Annotated[bool, typer.Option("--json", help="A line of JSON for each text.")] = False,
) -> None:
    """Suggest the next word, or, where the text does not end in a space, how its last word ends.

    Without a text it answers line by line what it reads, typed or from a pipe.
    """
    import json
    import sys

    from refllm.cli.documents import read_lines

    opened = open_keyboard(model, split)
    for typed in [text] if text is not None else read_lines("-"):
        words = opened.suggest(typed, k)
        print(json.dumps({"text": typed, "suggestions": words}, ensure_ascii=False) if as_json else "\t".join(words))
        sys.stdout.flush()  # whoever sends a line may wait for its answer


@app.command()
def evaluate(
    model: Model,
    files: Annotated[list[str] | None, typer.Argument(help="UTF-8 texts; - or none: standard input.", show_default=False)] = None,
    k: Annotated[int, typer.Option("-k", help="How many suggestions the keyboard shows.", min=1)] = 3,
    most: Annotated[int, typer.Option("--typed", help="Count the keys of so many words.", min=0)] = 10000,
    split: Split = "words",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of lines.")] = False,
) -> None:
    """Judge a keyboard on a text: perplexity, bits per character, keys saved, words suggested before their first letter."""
    import json
    import math

    from rich.console import Console

    from refllm.cli.documents import names, read_lines
    from refllm.cli.tokenizer import tell
    from refllm.evaluation.keystrokes import judge

    opened = open_keyboard(model, split)
    report = judge(opened, (line for name in names(files or ()) for line in read_lines(name)), k, most)
    typed = max(report.typed, 1)
    unknown, top1, topk = report.unknown / report.words, report.first / typed, report.among / typed
    stupid = opened.table.absent != 0
    if as_json:
        shown = {
            "lines": report.lines,
            "words": report.words,
            "oov_rate": unknown,
            "perplexity": None if stupid else report.perplexity,
            "perplexity_without_oov": None if stupid else report.perplexity_known,
            "bits_per_character": None if stupid else report.bits_per_character,
            "typed": report.typed,
            "keystroke_savings": report.savings,
            "top_1": top1,
            f"top_{k}": topk,
        }
        print(json.dumps({name: value if math.isfinite(value or 0) else None for name, value in shown.items()}))
        return
    facts = [("text", f"{report.words:,} words in {report.lines:,} lines; {unknown:.2%} outside the vocabulary")]
    if not stupid:  # whose scores have no perplexity
        facts += [
            ("perplexity", f"{report.perplexity:.2f}; {report.perplexity_known:.2f} without the words outside the vocabulary"),
            ("bits", f"{report.bits_per_character:.3f} per character, the spelling of unknown words left out"),
        ]
    facts += [
        ("keys", f"{report.savings:.1%} saved in {report.typed:,} words with {k} suggestions"),
        ("next word", f"{top1:.1%} the first suggestion, {topk:.1%} among the {k}"),
    ]
    tell(Console(highlight=False), facts)


def open_keyboard(path: Path, split: str) -> "Keyboard":
    """The keyboard of a file of ours or an ARPA file, told apart by its first bytes.

    split: how words are cut where the file does not tell, in ARPA
    Raises ValueError for a file that is neither.
    """
    from refllm.checkpoints import arpa, keyboard_file
    from refllm.models.keyboard import Keyboard

    with open(path, "rb") as file:
        head = file.read(9)
    if head[8:] == b"{":  # safetensors: the length of its header, then JSON
        return keyboard_file.load(path)
    words, table = arpa.read(path)
    return Keyboard(words, table, split)


def bytes_or_ngrams(budget: str) -> tuple[int, str]:
    """10MB, 500 kB, 12345 B as bytes; 1250000 ngrams. Raises ValueError for anything else."""
    import re

    units = {"b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30, "ngrams": 1}
    found = re.fullmatch(r"([0-9]{1,12}(?:\.[0-9]{1,6})?) *([a-z]+)", budget.strip().replace(",", "").replace("_", "").lower())
    if found is None or found[2] not in units or float(found[1]) == 0:
        raise ValueError(f"--budget {budget} is no size; write it as 10MB, 500kB or 1250000 ngrams.")
    return int(float(found[1]) * units[found[2]]), "ngrams" if found[2] == "ngrams" else "bytes"


def _lines_of(files: Sequence[str]) -> Iterator[str]:
    from refllm.cli.documents import read_lines
    from refllm.cli.tokenizer import text_files

    for name in files:
        for path in ["-"] if name == "-" else map(str, text_files([name])):
            yield from read_lines(path)
