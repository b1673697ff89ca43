"""The phone keyboard against the transformer: both learn from the same characters, each once, and are judged on the same windows.

The keyboard is an n-gram table with modified Kneser–Ney smoothing (Chen & Goodman 1999), of orders 1 to 8; the transformers are
small. Both have a size, entries of the table or parameters, and read an amount of data in characters. For each amount of data
their losses cross at some size; and the losses of the best of each kind, of any size, cross at some amount of data. Neither sees
context from before the window. The text is cut into pieces in a random order, so that even few characters come from many files.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from refllm.array_api import generator
from refllm.lab.experiment import Report, Result
from refllm.lab.materials import corpus, ngrams, text_models
from refllm.lab.materials.crossing import HIGH, LOW, Line, Means, crossing, means, where
from refllm.lab.materials.guesses import judged
from refllm.lab.materials.text_models import UNIT
from refllm.lab.running.pool import each
from refllm.lab.settings import require_whole_numbers
from refllm.lab.verdict import FAILS, HOLDS, UNDECIDABLE, Claim, Finding
from refllm.models import accounting, architecture, ngram

NAME = "keyboard"
SUMMARY = {"crossings": ("characters", "crossing_size", "low", "high", "best_table", "best_transformer", "gap")}
TABLE, TRANSFORMER = "n-gram", "transformer"
NOWHERE = "not within this range"


@dataclass(frozen=True)
class Settings:
    """The models. The defaults take about three minutes on two cores.

    orders: of the tables    widths: of the transformers, d_model    seeds: transformers of each width
    characters: of training data, rising multiples of batch · context; amounts that exceed the text are left out
    piece: of the text, in characters    windows: of held-out text, for evaluation    resamples: for the intervals
    text: a file or a folder; "" for Python's standard library
    """

    orders: tuple[int, ...] = (1, 2, 3, 4, 5, 6, 7, 8)
    widths: tuple[int, ...] = (4, 8, 12, 24, 48, 96)
    characters: tuple[int, ...] = (73728, 147456, 294912, 589824, 1179648, 2359296)
    seeds: int = 2
    batch: int = 4
    context: int = 64
    piece: int = 1024
    windows: int = 384
    resamples: int = 500
    seed: int = 0
    text: str = ""
    executor: str = "processes"

    def __post_init__(self) -> None:
        require_whole_numbers(self, seed=0)


QUICK = Settings(widths=(4, 8, 12, 24, 48), characters=(49152, 98304, 196608, 393216), seeds=1, windows=192)


class Job(NamedTuple):
    """The tables from so many characters, or the transformer of a width and a seed at every number of them."""

    kind: str
    value: int
    seed: int
    characters: tuple[int, ...]
    settings: Settings


def run(settings: Settings, folder: Path, workers: int, report: Report) -> Result:
    """Train and evaluate all models, and find where their losses cross."""
    s = settings
    characters = readable(corpus.load(s.text or None), s)
    sizes = [(d, seed) for d in sorted(s.widths, reverse=True) for seed in range(s.seeds)]
    jobs = [(f"transformer-d{d}-seed{seed}", Job(TRANSFORMER, d, seed, characters, s)) for d, seed in sizes]
    jobs += [(f"table-{D}", Job(TABLE, D, 0, characters, s)) for D in reversed(characters)]
    found: list[dict[str, Any]] = []
    for name, result in each(measured, jobs, workers, folder / "models", s.executor):
        best = min(result["rows"], key=lambda row: row["loss"])
        report(f"{name}: {best['loss']:.4f} {UNIT} at best, {100 * best['first']:.1f} % of characters predicted")
        found += result["rows"]
    found.sort(key=lambda row: (row["kind"], row["characters"], row["size"], row["seed"]))
    crossings, numbers = compared(found, s)
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
    if list(D) != sorted(D) or any(n % size for n in D):
        raise ValueError(f"characters={s.characters} must rise, each a multiple of batch · context = {size}.")
    return D


def measured(job: Job) -> Result:
    """The rows of a job's models, with the losses of every window."""
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
        about = {"kind": TABLE, "made_with": f"order {order}", "seed": 0, "size": ngrams.entries(model)}
        about["characters"] = job.value
        rows.append(about | judged(ngrams.predictions(model, windows[0]), windows, text.symbols or ""))
    return rows


def transformers(job: Job, text: corpus.Text, windows: tuple[np.ndarray, np.ndarray]) -> list[dict[str, Any]]:
    """One transformer after each number of characters."""
    s, size = job.settings, job.settings.batch * job.settings.context
    config = text_models.config_of(job.value, text.vocab_size, s.context)
    N = accounting.parameters(architecture(text_models.ARCHITECTURE), config).total
    order, steps = reading_order(job.characters, s.context, job.seed), [D // size for D in job.characters]

    def batch_at(step: int) -> Any:
        return corpus.windows(text.train, order[step * s.batch : (step + 1) * s.batch], s.context)

    rows = []
    for snapshot in text_models.learned(config, s.batch, s.context, job.seed, batch_at, steps):
        about = {"kind": TRANSFORMER, "made_with": f"width {job.value}", "seed": job.seed, "size": N}
        about["characters"] = snapshot.tokens
        p = text_models.probabilities(snapshot.averaged, config, windows[0])
        rows.append(about | judged(p, windows, text.symbols or ""))
    return rows


def reading_order(characters: Sequence[int], context: int, seed: int) -> np.ndarray:
    """Where windows begin, in the order of training: (D_max / context,). For every D, the first D characters of the text are read
    once, in a random order, before any other."""
    bounds = [0, *(D // context for D in characters)]
    parts = [a + generator(seed, "reading order", i).permutation(b - a) for i, (a, b) in enumerate(pairwise(bounds))]
    return np.concatenate(parts) * context


def compared(rows: Sequence[Mapping[str, Any]], settings: Settings) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """At which size the two kinds' losses cross, for each number of characters; and at which number the best of each do."""
    D = sorted({row["characters"] for row in rows})
    pairs = [[line_of(rows, kind, n, settings) for kind in (TABLE, TRANSFORMER)] for n in D]
    gap = np.array([table.found.min() - transformer.found.min() for table, transformer in pairs])
    drawn = np.array([table.drawn.min(axis=1) - transformer.drawn.min(axis=1) for table, transformer in pairs])  # (n, R)
    low, high = np.quantile(drawn, (LOW, HIGH), axis=1)
    crossings = []
    for i, (table, transformer) in enumerate(pairs):
        size, *ends, reached, both = crossing(table, transformer)
        found = {"characters": D[i], "crossing_size": NOWHERE if size is None else size, "low": ends[0], "high": ends[1]}
        found |= {"best_table": table.found.min(), "best_transformer": transformer.found.min()}
        found |= {"gap": gap[i], "gap_low": low[i], "gap_high": high[i], "transformer_ahead": np.mean(drawn[i] > 0)}
        crossings.append(found | {"table_reaches": reached, "smallest": both and both[0], "largest": both and both[1]})
    at, *ends = where(np.log(D), gap, drawn.T)
    return crossings, {"characters_where_the_best_cross": NOWHERE if at is None else at, "low": ends[0], "high": ends[1]}


def line_of(rows: Sequence[Mapping[str, Any]], kind: str, characters: int, settings: Settings) -> Means:
    """The losses of one kind after so many characters."""
    mine = [row for row in rows if (row["kind"], row["characters"]) == (kind, characters)]
    sizes = sorted({row["size"] for row in mine})
    losses = np.array([[row["window_losses"] for row in mine if row["size"] == size] for size in sizes])
    return means(Line(np.array(sizes, dtype=float), losses), settings.resamples, settings.seed)


def figures(result: Result) -> dict[str, Any]:
    """Loss against size for both kinds at several numbers of characters; the gap of the best; keystroke savings against loss."""
    from refllm.lab import plots

    rows, crossings = result["tables"]["models"], result["tables"]["crossings"]
    figure, (size, data) = plots.new_figure("entries of the table, or parameters", f"held-out loss ({UNIT})", panels=2)
    styles: dict[str, dict[str, Any]] = {
        TABLE: {"linestyle": "--", "markerfacecolor": "white"},
        TRANSFORMER: {"linestyle": "-"},
    }
    shown = crossings[::-2][:3][::-1]
    for i, at in enumerate(shown):
        for kind, style in styles.items():
            mine = [row for row in rows if row["kind"] == kind and row["characters"] == at["characters"]]
            sizes = sorted({row["size"] for row in mine})
            losses = [np.mean([row["loss"] for row in mine if row["size"] == n]) for n in sizes]
            label = f"{kind}, D = {at['characters']:,}"
            size.plot(sizes, losses, color=plots.COLORS[i], marker="ov^"[i], markersize=5, label=label, **style)
    D, gap = ([row[name] for row in crossings] for name in ("characters", "gap"))
    error = [[row["gap"] - row["gap_low"] for row in crossings], [row["gap_high"] - row["gap"] for row in crossings]]
    data.axhline(0, color=plots.FAINT, linewidth=1)
    data.errorbar(D, gap, np.maximum(error, 0), color=plots.COLORS[0], marker="o", markersize=5, capsize=3)
    data.set_xlabel("characters read D", color=plots.INK)
    data.set_ylabel(f"best n-gram − best transformer ({UNIT})", color=plots.INK)
    plots.logarithmic(size)
    plots.logarithmic(data, y=False)
    plots.legend(size)
    keys, axes = plots.new_figure(f"held-out loss ({UNIT})", "keystroke savings")
    for kind, color in ((TABLE, 1), (TRANSFORMER, 0)):
        mine = [row for row in rows if row["kind"] == kind]
        style = styles[kind] | {"linestyle": "", "marker": "o", "markersize": 5, "color": plots.COLORS[color]}
        axes.plot([r["loss"] for r in mine], [r["savings"] for r in mine], label=kind, **style)
    plots.legend(axes)
    return {"keyboard_and_transformer": figure, "keystroke_savings": keys}


def judge(results: Mapping[str, Any]) -> Finding:
    """The number of characters at which the best of each kind cross. A table does the same thing where its loss is as low as that
    of a transformer of its size, and scale is the difference where, with more data, tables of any size have higher losses. So
    the claim holds where with the fewest characters a table is as good at some size, and with the most the best transformer is
    better than every table; it fails where no table is as good at any size even with the fewest. Each must be so in 97.5 % of
    the resamples. Otherwise, also where tables still lead with the most characters, it is undecidable."""
    rows, numbers = results[NAME]["tables"]["crossings"], results[NAME]["numbers"]
    first, last, at = rows[0], rows[-1], numbers["characters_where_the_best_cross"]
    same, verdict = first["table_reaches"], UNDECIDABLE
    if same is not None and same <= LOW:
        verdict = FAILS
    elif same is not None and same >= HIGH and last["transformer_ahead"] >= HIGH:
        verdict = HOLDS
    bests = ", ".join(
        f"{row['best_table']:.3f} and {row['best_transformer']:.3f} after {row['characters']:,}" for row in (first, last)
    )
    sizes = [f"{row['crossing_size']:,.0f} after {row['characters']:,}" for row in rows if row["crossing_size"] != NOWHERE]
    why = f"The best table and the best transformer have losses of {bests} characters; at equal size they cross "
    why += f"at {', '.join(sizes)}." if sizes else "nowhere in this range."
    return Finding(None if at == NOWHERE else at, numbers["low"], numbers["high"], "characters", verdict, why)


CLAIMS = (
    Claim(
        12,
        "The phone keyboard does the same thing, at a smaller scale.",
        "the characters after which the best transformer overtakes the best Kneser–Ney table; holds where after the fewest "
        "characters a table is as good as a transformer of its size, and after the most no table is as good as the best of them",
        "",
        (NAME,),
        judge,
    ),
)
