"""The value of repeated data: one model reads U characters again and again, another as many fresh ones.

After e epochs the first has the loss that the second had after D′ characters: its effective data (`effective_data` has the law).
Both have the same initial weights and the same first epoch, so that D′ is U after it. The loss is that of the running mean of the
weights (see `learn`), so that one run gives the losses after every number of epochs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from refllm.array_api import generator
from refllm.lab.experiment import Report, Result
from refllm.lab.materials import corpus, text_models
from refllm.lab.materials.effective_data import PUBLISHED, RMS, equal_data, predicted, summary
from refllm.lab.running.pool import each
from refllm.lab.settings import require_whole_numbers
from refllm.lab.verdict import FAILS, HOLDS, UNDECIDABLE, Claim, Finding
from refllm.models import accounting, architecture

NAME = "epochs"
SUMMARY = {"value": ("epochs", "fresh_loss", "repeated_loss", "effective_epochs", "low", "high", "published")}
FRESH, REPEATED = "fresh", "repeated"


@dataclass(frozen=True)
class Settings:
    """The models. The defaults take about a minute on two cores.

    width: of the models, d_model    seeds: pairs of models
    unique: U, characters that are repeated, a multiple of batch · context    epochs: rising from 1
    batch: windows in an update, of `context` characters; few, so that the first epoch lasts longer than the warm-up
    windows: of held-out text, on which losses are measured    text: a file or a folder; "" for Python's standard library
    """

    width: int = 24
    unique: int = 32768
    epochs: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64)
    seeds: int = 4
    batch: int = 4
    context: int = 64
    windows: int = 384
    text: str = ""
    executor: str = "processes"

    def __post_init__(self) -> None:
        require_whole_numbers(self, seeds=2)  # one seed gives no interval


QUICK = Settings(width=16, epochs=(1, 2, 4, 8, 16), seeds=3, windows=192)


class Job(NamedTuple):
    """One model."""

    kind: str
    seed: int
    settings: Settings


def run(settings: Settings, folder: Path, workers: int, report: Report) -> Result:
    """Train a model on fresh and one on repeated characters for each seed, and find D′/U from their losses."""
    s = settings
    check(s, corpus.load(s.text or None))
    jobs = [(f"{kind}-seed{seed}", Job(kind, seed, s)) for seed in range(s.seeds) for kind in (REPEATED, FRESH)]
    rows: list[dict[str, Any]] = []
    for name, found in each(train, jobs, workers, folder / "models", s.executor):
        last = found["rows"][-1]
        report(f"{name}: {last['loss']:.4f} {text_models.UNIT} after {last['characters']:,} characters")
        rows += found["rows"]
    rows.sort(key=lambda row: (row["kind"], row["seed"], row["characters"]))
    effective = np.array([effective_epochs(rows, seed, s) for seed in range(s.seeds)])  # (seeds, epochs)
    value, numbers = summary(effective, s.epochs)
    for row in value:
        for kind in (FRESH, REPEATED):
            losses = [r["loss"] for r in rows if r["kind"] == kind and r["characters"] == row["epochs"] * s.unique]
            row[f"{kind}_loss"] = float(np.mean(losses))
    return {"tables": {"models": rows, "value": value}, "numbers": numbers}


def check(settings: Settings, text: corpus.Text) -> None:
    """Raise ValueError for epochs that do not rise from 1, a U of no whole batches, or too little fresh text."""
    s, needed = settings, settings.unique * settings.epochs[-1]
    if s.epochs[0] != 1 or list(s.epochs) != sorted(s.epochs) or len(s.epochs) < 2:
        raise ValueError(f"epochs={s.epochs} must rise from 1, and be two at least.")
    if s.unique % (s.batch * s.context):
        raise ValueError(f"unique={s.unique} must be a multiple of batch · context = {s.batch * s.context}.")
    if needed > (len(text.train) - 1) // s.context * s.context:
        has = f"{text.source} has {len(text.train):,} characters to learn from"
        raise ValueError(f"{has}; {s.epochs[-1]} epochs of {s.unique:,} are compared with {needed:,} fresh ones.")


def train(job: Job) -> Result:
    """Train one model: a row with its held-out loss for every snapshot."""
    s = job.settings
    text = corpus.load(s.text or None)
    config, each_epoch = text_models.config_of(s.width, text.vocab_size, s.context), s.unique // (s.batch * s.context)
    order = generator(job.seed, "reading order").permutation((len(text.train) - 1) // s.context)
    judged = corpus.evaluation(text.held_out, count=s.windows, context=s.context)

    def batch_at(step: int) -> Any:
        chosen = window_numbers(job, order, step, each_epoch)
        return corpus.windows(text.train, chosen * s.context, s.context)

    steps = [e * each_epoch for e in s.epochs] if job.kind == REPEATED else fresh_steps(each_epoch, s.epochs)
    rows = []
    for snapshot in text_models.learned(config, s.batch, s.context, job.seed, batch_at, steps):
        loss = text_models.loss_of(snapshot.averaged, config, judged)
        rows.append({"kind": job.kind, "seed": job.seed, "characters": snapshot.tokens, "loss": loss})
    N = accounting.parameters(architecture(text_models.ARCHITECTURE), config).total
    return {"rows": [row | {"parameters": N} for row in rows]}


def window_numbers(job: Job, order: np.ndarray, step: int, each_epoch: int) -> np.ndarray:
    """Which windows of the text the batch of a step has: the next of the order; where data are repeated, from the second epoch
    on the first U characters in an order that every epoch has of its own."""
    B = job.settings.batch
    epoch, at = divmod(step, each_epoch)
    if job.kind == FRESH or epoch == 0:
        return order[step * B : (step + 1) * B]
    unique = order[: each_epoch * B]
    return unique[generator(job.seed, "epoch", epoch).permutation(len(unique))[at * B : (at + 1) * B]]


def fresh_steps(each_epoch: int, epochs: Sequence[int]) -> list[int]:
    """Where the model on fresh data is judged: after every number of epochs, and between and before these by factors of √2."""
    between = [each_epoch * 2 ** (i / 2) for i in range(-6, 2 * int(np.log2(epochs[-1])) + 1)]
    return sorted({max(1, round(n)) for n in (*between, *(e * each_epoch for e in epochs))})


def effective_epochs(rows: Sequence[Mapping[str, Any]], seed: int, settings: Settings) -> np.ndarray:
    """D′/U after each number of epochs: (E,)."""
    D, fresh = _line(rows, FRESH, seed)
    read, repeated = _line(rows, REPEATED, seed)
    return equal_data(repeated, D, fresh) / settings.unique


def _line(rows: Sequence[Mapping[str, Any]], kind: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    mine = [row for row in rows if row["kind"] == kind and row["seed"] == seed]
    return np.array([row["characters"] for row in mine], dtype=float), np.array([row["loss"] for row in mine])


def figures(result: Result) -> dict[str, Any]:
    """The effective data against epochs beside the fitted and the published law; both losses against characters."""
    from refllm.lab import plots

    value, models, found = result["tables"]["value"], result["tables"]["models"], result["numbers"]
    epochs = [row["epochs"] for row in value]
    figure, (worth, loss) = plots.new_figure("epochs", "effective data, D′/U", panels=2)
    line = np.geomspace(1, epochs[-1], 100)
    worth.plot(line, line, color=plots.FAINT, linewidth=1, label="fresh data")
    worth.plot(line, predicted(line, PUBLISHED), color=plots.COLORS[1], linestyle="--", label=f"published, R* = {PUBLISHED}")
    rising = line[line <= found["fitted_up_to_epoch"]]
    worth.plot(rising, predicted(rising, found["R*"]), color=plots.COLORS[0], label=f"fitted, R* = {found['R*']:.3g}")
    error = [[row["effective_epochs"] - row["low"] for row in value], [row["high"] - row["effective_epochs"] for row in value]]
    measured = [row["effective_epochs"] for row in value]
    style = {"color": plots.INK, "linestyle": "", "marker": "o", "markersize": 4, "capsize": 2, "label": "measured"}
    worth.errorbar(epochs, measured, np.maximum(error, 0), **style)
    for kind, color, line_style in ((FRESH, 0, "-"), (REPEATED, 1, "--")):
        for seed in sorted({row["seed"] for row in models}):
            D, losses = _line(models, kind, seed)
            label = kind if seed == 0 else None
            style = {"color": plots.COLORS[color], "linestyle": line_style, "linewidth": 1.2, "marker": "o", "markersize": 2.5}
            loss.plot(D, losses, label=label, **style)
    loss.set_xlabel("characters read", color=plots.INK)
    loss.set_ylabel(f"held-out loss ({text_models.UNIT})", color=plots.INK)
    for axes in (worth, loss):
        plots.logarithmic(axes)
        plots.legend(axes)
    return {"value_of_epochs": figure}


def judge(results: Mapping[str, Any]) -> Finding:
    """R*. It is judged by D′ after the most epochs, as a share of as many fresh characters, with a 95 % interval over seeds. The
    claim holds where all of the interval lies below one half. It fails where all of it lies above and it reaches 1: then nothing
    is lost by repeating. Otherwise it is undecidable."""
    found, row = results[NAME]["numbers"], results[NAME]["tables"]["value"][-1]
    share, low, high = (row[name] / row["epochs"] for name in ("effective_epochs", "low", "high"))
    verdict = HOLDS if high < 0.5 else FAILS if low > 0.5 and high >= 1 else UNDECIDABLE
    until = found["fitted_up_to_epoch"]
    why = (
        f"{row['epochs']} epochs are worth {row['effective_epochs']:.1f} of fresh data ({row['low']:.1f} … {row['high']:.1f}), "
        f"{100 * share:.0f} % of as much fresh data, and by the published law {row['published']:.1f}. "
        f"The law with this R* misses D′ by {100 * found[RMS]:.0f} % (rms) up to {until} epochs"
    )
    if until < row["epochs"]:
        why += f"; after them the model over-fits, its loss rises, and with all epochs R* is {found['R*_of_all_epochs']:.1f}"
    return Finding(found["R*"], found["low"], found["high"], "repetitions", verdict, why + ".")


CLAIMS = (
    Claim(
        14,
        "Data may run out before compute.",
        "R* of D′ = U + U·R*·(1 − exp(−(epochs − 1)/R*)), fitted where D′ rises; "
        "holds where the most epochs are worth less than half of fresh data, fails where as much",
        "R* = 15.39 (Muennighoff 2023, arXiv:2305.16264)",
        (NAME,),
        judge,
    ),
)
