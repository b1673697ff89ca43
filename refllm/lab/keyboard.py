"""The phone keyboard against the transformer: both read the same characters, each once, and are judged on the same windows.

The keyboard is an n-gram table with modified Kneser–Ney smoothing (Chen & Goodman 1999), of orders 1 to 8; the transformers are
small. What they have in common is an axis of size, entries of the table or parameters, and an axis of data, characters read.
Contexts end at the window's beginning for both. The text is cut into pieces in a random order, so that even few characters come
from many files.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from refllm.array_api import generator
from refllm.lab import corpus, ngrams, sweep, text_models
from refllm.lab.crossing import Line, crossing, zero
from refllm.lab.experiment import Report, Result
from refllm.lab.guesses import judged
from refllm.lab.learn import learn
from refllm.lab.pool import each
from refllm.lab.verdict import FAILS, HOLDS, UNDECIDABLE, Claim, Finding
from refllm.models import accounting, architecture, ngram

NAME = "keyboard"
SUMMARY = {
    "models": ("kind", "made_with", "size", "characters", "loss", "first", "savings"),
    "crossings": ("characters", "crossing", "low", "high", "best_table", "best_transformer"),
}
TABLE, TRANSFORMER = "n-gram", "transformer"
NOWHERE = "not within this range"


@dataclass(frozen=True)
class Settings:
    """The models. The defaults take about a minute on two cores.

    characters: read, rising multiples of batch · context; more than the text has are left out
    piece: of the text, in characters    windows: that judge    resamples: of the windows, for intervals
    text: a file or a folder; "" for Python's standard library
    """

    orders: tuple[int, ...] = (1, 2, 3, 4, 5, 6, 7, 8)
    widths: tuple[int, ...] = (4, 8, 12, 24, 48, 96)
    characters: tuple[int, ...] = (49152, 98304, 196608, 393216, 786432, 1572864)
    batch: int = 8
    context: int = 64
    piece: int = 1024
    windows: int = 384
    resamples: int = 500
    seed: int = 0
    text: str = ""
    executor: str = "processes"


QUICK = Settings(widths=(4, 8, 12, 24, 48), characters=(49152, 98304, 196608, 393216), windows=192)


class Job(NamedTuple):
    """The tables from so many characters, or the transformer of a width at every number of them."""

    kind: str
    value: int
    characters: tuple[int, ...]
    settings: Settings


def run(settings: Settings, folder: Path, workers: int, report: Report) -> Result:
    """Train all, judge all, and see where their losses cross."""
    s = settings
    characters = readable(corpus.load(s.text or None), s)
    jobs = [(f"transformer-d{d}", Job(TRANSFORMER, d, characters, s)) for d in sorted(s.widths, reverse=True)]
    jobs += [(f"table-{D}", Job(TABLE, D, characters, s)) for D in reversed(characters)]
    found: list[dict[str, Any]] = []
    for name, result in each(measured, jobs, workers, folder / "models", s.executor):
        best = min(result["rows"], key=lambda row: row["loss"])
        report(f"{name}: {best['loss']:.4f} {sweep.UNIT} at best, {100 * best['first']:.1f} % of the characters guessed")
        found += result["rows"]
    found.sort(key=lambda row: (row["kind"], row["characters"], row["size"]))
    crossings = [cross([row for row in found if row["characters"] == D], s) for D in characters]
    gap = [row["best_table"] - row["best_transformer"] for row in crossings]
    meeting = zero(np.log(characters), np.array(gap))
    numbers = {"characters_where_the_best_cross": NOWHERE if meeting is None else float(np.exp(meeting))}
    rows = [{k: v for k, v in row.items() if k != "window_losses"} for row in found]
    return {"tables": {"models": rows, "crossings": crossings}, "numbers": numbers}


def readable(text: corpus.Text, settings: Settings) -> tuple[int, ...]:
    """The numbers of characters that the text has. Raises ValueError where it has none of them, or they are no whole batches."""
    s = settings
    D, size = tuple(n for n in s.characters if n < len(text.train) // s.piece * s.piece), s.batch * s.context
    if not D:
        raise ValueError(
            f"{text.source} has {len(text.train):,} characters to learn from; characters={s.characters} ask for more."
        )
    if any(a >= b for a, b in pairwise((0, *D))) or any(n % size for n in D):
        raise ValueError(f"characters={s.characters} must rise, each a multiple of batch · context = {size}.")
    return D


def measured(job: Job) -> Result:
    """The rows of a job."""
    text = corpus.load(job.settings.text or None)
    text = text._replace(train=text_models.pieces(text.train, job.settings.piece, job.settings.seed).ravel())
    windows = corpus.evaluation(text.held_out, count=job.settings.windows, context=job.settings.context)
    rows = tables(job, text, windows) if job.kind == TABLE else transformers(job, text, windows)
    return {"rows": rows}


def tables(job: Job, text: corpus.Text, windows: tuple[np.ndarray, np.ndarray]) -> list[dict[str, Any]]:
    """Tables of every order from the text's first characters."""
    counts = ngram.count(text.train[: job.value], max(job.settings.orders), text.vocab_size)
    rows = []
    for order in job.settings.orders:
        model = ngrams.shortened(counts, order)
        about = {"kind": TABLE, "made_with": f"order {order}", "size": ngrams.entries(model), "characters": job.value}
        rows.append(about | judged(ngrams.predictions(model, windows[0]), windows, text.symbols or ""))
    return rows


def transformers(job: Job, text: corpus.Text, windows: tuple[np.ndarray, np.ndarray]) -> list[dict[str, Any]]:
    """One transformer after each number of characters."""
    s, size = job.settings, job.settings.batch * job.settings.context
    config = sweep.config_of(job.value, text.vocab_size, s.context)
    N = accounting.parameters(architecture(sweep.ARCHITECTURE), config).total
    order, steps = reading_order(job.characters, s.context, s.seed), [D // size for D in job.characters]

    def batch_at(step: int) -> Any:
        return corpus.windows(text.train, order[step * s.batch : (step + 1) * s.batch], s.context)

    training, rows = text_models.training(job.value, steps[-1], s.batch, s.context, s.seed), []
    for snapshot in learn(sweep.ARCHITECTURE, config, training, batch_at, steps, gain=text_models.GAIN):
        about = {"kind": TRANSFORMER, "made_with": f"width {job.value}", "size": N, "characters": snapshot.tokens}
        p = text_models.probabilities(snapshot.averaged, config, windows[0])
        rows.append(about | judged(p, windows, text.symbols or ""))
    return rows


def reading_order(characters: Sequence[int], context: int, seed: int) -> np.ndarray:
    """Where windows begin, in the order in which they are read: for every D, the text's first D characters are read once, in a
    random order, before any other."""
    bounds = [0, *(D // context for D in characters)]
    parts = [a + generator(seed, "reading order", i).permutation(b - a) for i, (a, b) in enumerate(pairwise(bounds))]
    return np.concatenate(parts) * context


def cross(rows: Sequence[Mapping[str, Any]], settings: Settings) -> dict[str, Any]:
    """Where along the sizes the two kinds' losses cross, given the models of one number of characters."""
    table, transformer = (line_of([row for row in rows if row["kind"] == kind]) for kind in (TABLE, TRANSFORMER))
    found = crossing(table, transformer, settings.resamples, settings.seed)
    return {
        "characters": rows[0]["characters"],
        "crossing": NOWHERE if found.size is None else found.size,
        "low": found.low,
        "high": found.high,
        "best_table": float(table.losses.mean(axis=1).min()),
        "best_transformer": float(transformer.losses.mean(axis=1).min()),
        "table_reaches": found.reached,
        "smallest": found.range[0] if found.range else None,
        "largest": found.range[1] if found.range else None,
    }


def line_of(rows: Sequence[Mapping[str, Any]]) -> Line:
    """The sizes and losses of one kind."""
    sizes, losses = (np.array([row[name] for row in rows], dtype=float) for name in ("size", "window_losses"))
    return Line(sizes, losses)


def figures(result: Result) -> dict[str, Any]:
    """Loss against size for both kinds at several numbers of characters; the best of each against characters."""
    from refllm.lab import plots

    rows, crossings = result["tables"]["models"], result["tables"]["crossings"]
    figure, (size, data) = plots.new_figure("entries of the table, or parameters", f"held-out loss ({sweep.UNIT})", panels=2)
    styles: dict[str, dict[str, Any]] = {
        TABLE: {"linestyle": "--", "marker": "s"},
        TRANSFORMER: {"linestyle": "-", "marker": "o"},
    }
    shown = crossings[::-2][:4][::-1]
    for i, at in enumerate(shown):
        for kind, style in styles.items():
            mine = [row for row in rows if row["kind"] == kind and row["characters"] == at["characters"]]
            label = f"{kind}, D = {at['characters']:,}" if at is shown[-1] or kind == TRANSFORMER else None
            size.plot(
                [r["size"] for r in mine], [r["loss"] for r in mine], color=plots.COLORS[i], markersize=4, label=label, **style
            )
    for kind, column, color in ((TABLE, "best_table", 1), (TRANSFORMER, "best_transformer", 0)):
        D = [row["characters"] for row in crossings]
        data.plot(D, [row[column] for row in crossings], color=plots.COLORS[color], label=f"best {kind}", **styles[kind])
    data.set_xlabel("characters read D", color=plots.INK)
    for axes in (size, data):
        plots.logarithmic(axes)
        plots.legend(axes)
    keys, axes = plots.new_figure(f"held-out loss ({sweep.UNIT})", "share of keys saved")
    for kind, color in ((TABLE, 1), (TRANSFORMER, 0)):
        mine = [row for row in rows if row["kind"] == kind]
        axes.plot(
            [r["loss"] for r in mine], [r["savings"] for r in mine], "o", markersize=4, color=plots.COLORS[color], label=kind
        )
    plots.legend(axes)
    return {"keyboard_and_transformer": figure, "keystroke_savings": keys}


def judge(results: Mapping[str, Any]) -> Finding:
    """Where the two cross at the most characters. It holds where at some size the table is as good as the transformer in at
    least 97.5 % of the resamples of the windows, fails where in at most 2.5 %, and is undecidable between."""
    row = results[NAME]["tables"]["crossings"][-1]
    share, value = row["table_reaches"], row["crossing"] if row["crossing"] != NOWHERE else None
    best = f"the best table has {row['best_table']:.3f} {sweep.UNIT}, the best transformer {row['best_transformer']:.3f}"
    where = "their losses do not cross at the sizes tried" if value is None else f"their losses cross at size {value:,.0f}"
    verdict = UNDECIDABLE if share is None or 0.025 < share < 0.975 else HOLDS if share >= 0.975 else FAILS
    why = f"After {row['characters']:,} characters {where}; {best}."
    return Finding(value, row["low"], row["high"], "entries or parameters", verdict, why)


CLAIMS = (
    Claim(
        12,
        "The phone keyboard does the same thing, at a smaller scale.",
        "the size, in entries or parameters, at which a Kneser–Ney table and a transformer have the same loss after the same "
        "characters; holds where at some size the table is as good as the transformer",
        "",
        (NAME,),
        judge,
    ),
)
