"""Models trained on text that models sampled: does it help, or ruin them? Generation 0 is trained on real text, each later one on

    replace       only what the generation before sampled, as much as the real text (Shumailov 2024, Nature 631, 755–759)
    accumulate    what all generations before sampled, and the real text (Gerstgrasser 2024, arXiv:2404.01413)
    fresh         as much real text as accumulate has of both kinds

All are evaluated on the same held-out real text, and by their samples: the share of distinct 4-grams, the share of the rarest
characters, and the entropy under the model that sampled them. Models are n-gram tables, or small transformers that are trained
from scratch for equally many steps. Sampling is not truncated: the probability that a smoothed table gives to unseen n-grams
enters the data, so that the samples of tables become more and more random.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from refllm.lab.experiment import Report, Result
from refllm.lab.fits.fit import mean_interval
from refllm.lab.materials import corpus, text_models, writers
from refllm.lab.running.pool import each
from refllm.lab.settings import require_whole_numbers
from refllm.lab.verdict import FAILS, HOLDS, SIGNIFICANT, UNDECIDABLE, Claim, Finding

NAME = "collapse"
SUMMARY = {"means": ("kind", "data", "generation", "loss", "distinct", "rare", "entropy")}
REPLACE, ACCUMULATE, FRESH = REGIMES = ("replace", "accumulate", "fresh")
MARKERS = "ov^"  # of the regimes
TABLE, TRANSFORMER = "n-gram", "transformer"
MEASURES = ("loss", "distinct", "rare", "entropy")
DISTINCT, RARE = 4, 0.01  # characters of the n-grams that are counted; share of the real text that rare characters make up


@dataclass(frozen=True)
class Settings:
    """The generations. The defaults take about two minutes on two cores.

    characters: of the text of one generation    order: of the n-gram tables    piece: characters of one sample of a table
    table_generations, generations: of tables and of transformers    table_seeds, seeds: repetitions of these
    width: of the transformers, d_model    steps: updates of each, on `batch` windows of `context` characters
    windows: of held-out text, on which losses are measured
    text: a file or a folder; "" for Python's standard library
    """

    characters: int = 131072
    order: int = 4
    piece: int = 512
    table_generations: int = 8
    table_seeds: int = 3
    width: int = 24
    generations: int = 5
    seeds: int = 2
    steps: int = 768
    batch: int = 16
    context: int = 64
    windows: int = 384
    text: str = ""
    executor: str = "processes"

    def __post_init__(self) -> None:
        require_whole_numbers(self, table_generations=2, generations=2, table_seeds=2, piece=DISTINCT, context=DISTINCT - 1)


QUICK = Settings(characters=65536, table_generations=6, table_seeds=4, generations=3, seeds=1, steps=256, windows=192)


class Job(NamedTuple):
    """The generations of one kind of model in one regime of data."""

    kind: str
    regime: str
    seed: int
    settings: Settings

    @property
    def length(self) -> int:
        """Characters of the pieces that a text is made of."""
        return self.settings.piece if self.kind == TABLE else self.settings.context + 1

    @property
    def pieces(self) -> int:
        """Pieces of a text."""
        return max(1, self.settings.characters // self.length)

    @property
    def generations(self) -> int:
        """How many there are."""
        return self.settings.table_generations if self.kind == TABLE else self.settings.generations


def run(settings: Settings, folder: Path, workers: int, report: Report) -> Result:
    """Train the generations of both kinds of model in all three regimes of data."""
    s = settings
    check(s, corpus.load(s.text or None))
    kinds = ((TRANSFORMER, s.seeds), (TABLE, s.table_seeds))
    jobs = [Job(kind, regime, seed, s) for kind, seeds in kinds for seed in range(seeds) for regime in REGIMES]
    tasks = [(f"{job.kind}-{job.regime}-{job.seed}", job) for job in jobs]
    rows: list[dict[str, Any]] = []
    real: dict[str, Any] = {}
    for name, found in each(train_generations, tasks, workers, folder / "models", s.executor):
        losses = [row["loss"] for row in found["rows"]]
        report(f"{name}: {losses[0]:.3f} {text_models.UNIT}, {len(losses) - 1} generations later {losses[-1]:.3f}")
        rows += found["rows"]
        real[f"real text, {found['rows'][0]['kind']}"] = found["real"]
    rows.sort(key=lambda row: (row["kind"], REGIMES.index(row["data"]), row["seed"], row["generation"]))
    return {"tables": {"means": means(rows), "generations": rows}, "numbers": real}


def check(settings: Settings, text: corpus.Text) -> None:
    """Raise ValueError where the text is too short for fresh characters in every generation."""
    for kind, generations in ((TABLE, settings.table_generations), (TRANSFORMER, settings.generations)):
        job = Job(kind, FRESH, 0, settings)
        if len(text.train) < generations * job.pieces * job.length:
            has = f"{text.source} has {len(text.train):,} characters to learn from"
            raise ValueError(f"{has}; {generations} generations of {job.pieces * job.length:,} need more. Set characters lower.")


def train_generations(job: Job) -> Result:
    """Train the generations of one job: their losses and the measures of their samples; and these of the first real text."""
    s = job.settings
    text = corpus.load(s.text or None)
    real, n = text_models.pieces(text.train, job.length, job.seed), job.pieces
    judged = corpus.evaluation(text.held_out, count=s.windows, context=s.context)
    rare = rare_characters(text.train, text.vocab_size)
    rows, data = [], real[:n]
    for g in range(job.generations):
        found = learned(job, data, g, judged, text.vocab_size)
        about = {"kind": job.kind, "data": job.regime, "seed": job.seed, "generation": g, "characters": data.size}
        rows.append(about | {"loss": found.loss, "entropy": found.entropy} | measures(found.written, rare))
        data = following(job.regime, data, found.written, real[(g + 1) * n : (g + 2) * n])
    return {"rows": rows, "real": measures(real[:n], rare)}


def learned(job: Job, data: np.ndarray, g: int, judged: tuple[np.ndarray, np.ndarray], vocab_size: int) -> writers.Generation:
    """Generation g, trained on data (pieces, length)."""
    s = job.settings
    if job.kind == TABLE:
        return writers.table(data, judged, s.order, vocab_size, job.pieces, job.seed, g)
    recipe = writers.Recipe(s.width, s.steps, s.batch, s.context, vocab_size)
    return writers.transformer(data, judged, recipe, job.pieces, 1000 * job.seed + g)


def following(regime: str, data: np.ndarray, written: np.ndarray, fresh: np.ndarray) -> np.ndarray:
    """The pieces (n, length) that the next generation is trained on."""
    if regime == REPLACE:
        return written
    return np.concatenate([data, written if regime == ACCUMULATE else fresh])


def rare_characters(ids: np.ndarray, vocab_size: int) -> np.ndarray:
    """The ids of the rarest characters, which together make up at most a share RARE of a text (N,)."""
    counts = np.bincount(ids, minlength=vocab_size)
    order = np.argsort(counts, kind="stable")
    return order[np.cumsum(counts[order]) <= RARE * len(ids)]


def measures(written: np.ndarray, rare: np.ndarray) -> dict[str, float]:
    """Of pieces (n, length): the share of distinct 4-grams, and of rare characters."""
    grams = np.lib.stride_tricks.sliding_window_view(written, DISTINCT, axis=1).reshape(-1, DISTINCT)
    codes = grams.astype(np.int64) @ 256 ** np.arange(DISTINCT)
    return {"distinct": len(np.unique(codes)) / len(codes), "rare": float(np.isin(written, rare).mean())}


def means(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Every generation's measures, means over seeds, with the least and the greatest loss as "low" and "high"."""
    found = []
    for kind, data, g in dict.fromkeys((row["kind"], row["data"], row["generation"]) for row in rows):
        mine = [row for row in rows if (row["kind"], row["data"], row["generation"]) == (kind, data, g)]
        losses = [row["loss"] for row in mine]
        about = {"kind": kind, "data": data, "generation": g, "low": min(losses), "high": max(losses)}
        found.append(about | {name: float(np.mean([row[name] for row in mine])) for name in MEASURES})
    return found


def rises(rows: Sequence[Mapping[str, Any]], kind: str, regime: str) -> np.ndarray:
    """The rise of the loss from the first generation to the last, for each seed: (seeds,) nats per character."""
    mine = [row for row in rows if row["kind"] == kind and row["data"] == regime]
    seeds, last = sorted({row["seed"] for row in mine}), max(row["generation"] for row in mine)
    loss = {(row["seed"], row["generation"]): row["loss"] for row in mine}
    return np.array([loss[seed, last] - loss[seed, 0] for seed in seeds])


def figures(result: Result) -> dict[str, Any]:
    """The loss of every generation, for tables and for transformers; the diversity, rare characters and entropy of samples."""
    from refllm.lab import plots

    rows = result["tables"]["means"]
    loss, panels = plots.new_figure("generation", f"loss on real text ({text_models.UNIT})", panels=2)
    for axes, kind in zip(panels, (TABLE, TRANSFORMER), strict=True):
        for i, regime in enumerate(REGIMES):
            mine = [row for row in rows if row["kind"] == kind and row["data"] == regime]
            x = [row["generation"] for row in mine]
            low, high = ([row[end] for row in mine] for end in ("low", "high"))
            axes.fill_between(x, low, high, color=plots.COLORS[i], alpha=0.2, linewidth=0)
            axes.plot(x, [row["loss"] for row in mine], marker=MARKERS[i], markersize=5, color=plots.COLORS[i], label=regime)
        axes.set_title(f"{kind}s", fontsize=10, color=plots.INK)
        plots.legend(axes)
    written, measured = plots.new_figure("generation", "", panels=3)
    labels = (f"share of distinct {DISTINCT}-grams", "share of rare characters", "entropy (nats/character)")
    for axes, measure, label in zip(measured, MEASURES[1:], labels, strict=True):
        for i, regime in enumerate(REGIMES):
            for kind, style in ((TABLE, "--"), (TRANSFORMER, "-")):
                mine = [row for row in rows if row["kind"] == kind and row["data"] == regime]
                look = {"linestyle": style, "marker": MARKERS[i], "markersize": 4, "color": plots.COLORS[i]}
                axes.plot([r["generation"] for r in mine], [r[measure] for r in mine], label=f"{kind}, {regime}", **look)
        axes.set_ylabel(label, color=plots.INK)
    plots.legend(measured[1], loc="upper left")
    for axes in (*panels, *measured):
        axes.xaxis.get_major_locator().set_params(integer=True)
    return {"collapse": loss, "what_they_write": written}


def judge(results: Mapping[str, Any]) -> Finding:
    """The rise of the loss of tables per generation where samples replace the data, with Student's 95 % interval over seeds.

    The claim holds where, for every seed of both kinds of model, the loss rises if samples replace the data, and rises less if
    they accumulate; it fails where it rises for none. Otherwise, and with fewer than five seeds of both kinds together, which
    would agree by chance too often, it is undecidable.
    """
    rows = results[NAME]["tables"]["generations"]
    replaced, accumulated = ([rises(rows, kind, regime) for kind in (TABLE, TRANSFORMER)] for regime in (REPLACE, ACCUMULATE))
    every, kept = np.concatenate(replaced), np.concatenate(accumulated)
    verdict = UNDECIDABLE
    if 0.5 ** len(every) <= SIGNIFICANT:
        holds = np.all(every > 0) and np.all(kept < every)
        verdict = HOLDS if holds else FAILS if np.all(every <= 0) else UNDECIDABLE
    by_step = replaced[0] / max(row["generation"] for row in rows if row["kind"] == TABLE)
    value, low, high = map(float, mean_interval(by_step))
    why = (
        f"Where samples replace the data, the loss rises by {replaced[0].mean():.2f} nats (tables) and {replaced[1].mean():.2f} "
        f"(transformers), where they accumulate by {accumulated[0].mean():.2f} and {accumulated[1].mean():.2f}: "
        f"samples bring {np.sum(kept < 0)} of {len(kept)} below the loss of the first real text alone."
    )
    return Finding(value, low, high, "nats/character per generation", verdict, why)


CLAIMS = (
    Claim(
        15,
        "Synthetic data can break the limit, or the model.",
        "the rise of the loss on real text per generation of n-gram tables where samples replace the data; holds where this loss "
        "rises with every seed and kind, five seeds at least, and rises less where samples accumulate beside the real data",
        "replaced: rises with every generation; accumulated: stays bounded (Gerstgrasser 2024, arXiv:2404.01413)",
        (NAME,),
        judge,
    ),
)
