"""Do small models get stuck? Models of several sizes and seeds complete the same prompts, at several temperatures.

A completion loops where its end is periodic: its last SPAN characters or more, and three periods at least, repeat (Holtzman
2020, arXiv:1904.09751, finds greedy completions in such loops). distinct-n is the number of different n-grams as a share of all
(Li 2016, arXiv:1510.03055). Both are also measured on the text that really follows the prompts.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from refllm.decoding import Sampler, generate
from refllm.evaluation.metrics import wilson
from refllm.lab.experiment import Report, Result
from refllm.lab.fits.fit import student
from refllm.lab.materials import corpus, text_models
from refllm.lab.running.pool import each
from refllm.lab.seeds import over_seeds
from refllm.lab.settings import require_whole_numbers
from refllm.lab.verdict import FAILS, HOLDS, UNDECIDABLE, Claim, Finding
from refllm.models import accounting, architecture
from refllm.models.model import Model

NAME = "repetition"
SUMMARY = {"sizes": ("parameters", "temperature", "loops", "least", "greatest", "distinct_4")}
SPAN, PERIODS, N_GRAM = 24, 32, 4
DISTINCT = f"distinct_{N_GRAM}"


@dataclass(frozen=True)
class Settings:
    """The sizes, their training and the sampling. The defaults take two minutes on two cores.

    widths: of the models, d_model    seeds: models of each width    steps: updates, on batch · context characters each
    temperatures: 0 is greedy    rows: completions of a model at each temperature
    prompt: characters of held-out text; the completion fills the rest of the context
    text: a file or a folder; "" for Python's standard library
    """

    widths: tuple[int, ...] = (12, 24, 48, 96)
    seeds: int = 3
    steps: int = 2000
    batch: int = 4
    context: int = 128
    temperatures: tuple[float, ...] = (0.0, 0.4, 0.7, 1.0)
    prompt: int = 32
    rows: int = 64
    text: str = ""
    executor: str = "processes"

    def __post_init__(self) -> None:
        require_whole_numbers(self, temperatures=0)
        if len(self.widths) < 2 or len(self.widths) * self.seeds < 3:
            raise ValueError(f"widths={self.widths} with seeds={self.seeds}: a slope takes two widths, its error three models.")
        if not 0 < self.prompt <= self.context - SPAN:
            raise ValueError(f"prompt={self.prompt} must be 1 … context − {SPAN} = {self.context - SPAN}: a loop takes {SPAN}.")


QUICK = Settings(widths=(12, 24, 48), seeds=1, steps=600)


class Job(NamedTuple):
    """One model."""

    width: int
    seed: int
    settings: Settings


def run(settings: Settings, folder: Path, workers: int, report: Report) -> Result:
    """Train models of every size and sample from them."""
    s = settings
    rows, real = [], {}
    jobs = [(f"d{d}-seed{seed}", Job(d, seed, s)) for d in sorted(s.widths, reverse=True) for seed in range(s.seeds)]
    for name, found in each(written, jobs, workers, folder / "models", s.executor):
        rows += found["rows"]
        real = found["real"]
        looping = ", ".join(f"{100 * row['loops']:.0f} % at {row['temperature']:g}" for row in found["rows"])
        report(f"{name}: loss {found['rows'][0]['loss']:.3f} nats/character; loops {looping}")
    rows.sort(key=lambda row: (row["width"], row["seed"], row["temperature"]))
    sizes = over_seeds(rows, ("width", "parameters", "temperature"), "loops", (DISTINCT,))
    return {"tables": {"sizes": sizes, "texts": rows}, "numbers": {"real_text": real}}


def written(job: Job) -> dict[str, Any]:
    """Train one model and measure its completions at every temperature."""
    s = job.settings
    text = corpus.load(s.text or None)
    config, model = text_models.config_of(job.width, text.vocab_size, s.context), architecture(text_models.ARCHITECTURE)

    def batch_at(step: int) -> Any:
        return corpus.batch(text.train, job.seed, step, batch=s.batch, context=s.context)

    (snapshot,) = text_models.learned(config, s.batch, s.context, job.seed, batch_at, [s.steps])
    windows = corpus.evaluation(text.held_out, count=s.rows, context=s.context)
    about = {
        "width": job.width,
        "seed": job.seed,
        "parameters": accounting.parameters(model, config).total,
        "loss": text_models.loss_of(snapshot.averaged, config, windows),
    }
    prompts = windows[0][:, : s.prompt].tolist()
    rows = []
    for temperature in s.temperatures:
        sampler = Sampler(temperature=temperature)
        steps = generate(Model(model, config, snapshot.averaged), prompts, s.context - s.prompt, sampler, job.seed)
        rows.append(about | {"temperature": temperature} | described(np.stack([step.tokens for step in steps], axis=1)))
    return {"rows": rows, "real": described(windows[0][:, s.prompt :])}


def described(texts: np.ndarray) -> dict[str, Any]:
    """The share of texts (n, T) that loop, with its interval, and their mean distinct-n."""
    share = wilson(sum(map(loops, texts)), len(texts))
    distinct = float(np.mean([distinct_share(text) for text in texts]))
    return {"loops": share.value, "low": share.low, "high": share.high, DISTINCT: distinct, "texts": share.n}


def loops(text: np.ndarray) -> bool:
    """Whether the end of a text (T,) repeats, with a period of 1 … PERIODS characters."""
    for period in range(1, PERIODS + 1):
        span = max(SPAN, 3 * period)
        if span <= len(text) and np.array_equal(text[-span:-period], text[len(text) - span + period :]):
            return True
    return False


def distinct_share(text: np.ndarray, n: int = N_GRAM) -> float:
    """distinct-n of a text (T,): the number of its different n-grams over that of all."""
    grams = np.lib.stride_tricks.sliding_window_view(text, n)
    return len(np.unique(grams, axis=0)) / len(grams)


def figures(result: Result) -> dict[str, Any]:
    """Loops and distinct-n against N, a line for each temperature; real text dotted."""
    from refllm.lab import plots

    rows, real = result["tables"]["sizes"], result["numbers"]["real_text"]
    figure, panels = plots.new_figure(plots.LABELS["parameters"], "share of completions that end in a loop", panels=2)
    panels[1].set_ylabel(f"share of distinct {N_GRAM}-grams", color=plots.INK)
    for axes, column in zip(panels, ("loops", DISTINCT), strict=True):
        for i, temperature in enumerate(sorted({row["temperature"] for row in rows})):
            mine, color = [row for row in rows if row["temperature"] == temperature], plots.COLORS[i % len(plots.COLORS)]
            x, marker = [row["parameters"] for row in mine], plots.MARKERS[i % len(plots.MARKERS)]
            if column == "loops":
                between = [row["least"] for row in mine], [row["greatest"] for row in mine]
                axes.fill_between(x, *between, color=color, alpha=0.15, linewidth=0)
            axes.plot(x, [row[column] for row in mine], marker=marker, color=color, label=f"temperature {temperature:g}")
        axes.axhline(real[column], linestyle=":", color=plots.INK, label="real text")
        axes.set_ylim(-0.03, 1.03)
        plots.logarithmic(axes, y=False)
    handles = panels[0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=len(handles[0]), frameon=False, fontsize=9, labelcolor=plots.INK)
    return {"loops": figure}


def judge_repetition(results: Mapping[str, Any]) -> Finding:
    """Claim 11: by how much the share of completions that loop, the mean over temperatures, changes per doubling of N. It holds
    where the 95 % interval lies below 0, and fails where it lies above; otherwise it is undecidable.
    """
    models: dict[tuple[int, int], list[float]] = {}
    for row in results[NAME]["tables"]["texts"]:
        models.setdefault((row["parameters"], row["seed"]), []).append(row["loops"])
    shares = [float(np.mean(loops)) for loops in models.values()]
    change, low, high = per_doubling([N for N, _ in models], shares)
    verdict = HOLDS if high < 0 else FAILS if low > 0 else UNDECIDABLE
    told = []
    for size in sorted({N for N, _ in models}):
        mine = [share for (N, _), share in zip(models, shares, strict=True) if size == N]
        told.append(f"{100 * np.mean(mine):.0f} % at {size:,}")
    real = 100 * results[NAME]["numbers"]["real_text"]["loops"]
    why = f"Completions that loop, at all temperatures, by N: {', '.join(told)}; of real text {real:.0f} %."
    return Finding(change, low, high, "share that loops, per doubling of N", verdict, why)


def per_doubling(N: Sequence[float], y: Sequence[float]) -> tuple[float, float, float]:
    """The slope of a straight line fitted to y (n,) over log₂ N (n,), with Student's 95 % interval from its residuals."""
    x = np.log2(np.asarray(N, dtype=float))
    x = x - x.mean()
    slope = float(x @ y / (x @ x))
    rest = np.asarray(y) - np.mean(y) - slope * x
    reach = student(len(x) - 2) * math.sqrt(float(rest @ rest) / (len(x) - 2) / float(x @ x))
    return slope, slope - reach, slope + reach


CLAIMS = (
    Claim(
        11,
        "Small models get stuck in repetition; scale makes it rarer.",
        "slope of the share of texts that end in a loop over log₂ N, of all models; holds if its 95 % interval lies below 0",
        "greedy and beam-searched texts of GPT-2 large loop: Holtzman 2020",
        (NAME,),
        judge_repetition,
    ),
)
