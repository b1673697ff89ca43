"""Do small models get stuck? Models of several sizes write on from the same prompts, at several temperatures.

A text loops where its end has a period: its last SPAN characters or more, three periods at least, repeat (Holtzman
2020, arXiv:1904.09751, finds greedy texts in such loops). distinct-n is the share of a text's n-grams that differ (Li 2016,
arXiv:1510.03055). Both are told of the text that really follows the prompts, too.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from refllm.decoding import Sampler, generate
from refllm.evaluation.metrics import Share, wilson
from refllm.lab import corpus, sweep
from refllm.lab.experiment import Report, Result
from refllm.lab.learn import learn
from refllm.lab.pool import each
from refllm.lab.verdict import FAILS, HOLDS, UNDECIDABLE, Claim, Finding
from refllm.models import accounting, architecture
from refllm.models.model import Model

NAME = "repetition"
SUMMARY = {"texts": ("width", "parameters", "temperature", "loops", "low", "high", "distinct_4")}
SPAN, PERIODS, N_GRAM = 24, 32, 4


@dataclass(frozen=True)
class Settings:
    """The sizes, how long they learn and what they write. The defaults take a minute and a half on two cores.

    steps: updates of batch · context characters    rate: learning rate at width 24; others as a power of the width
    prompt: characters of held-out text that are given; the context's rest is written    rows: texts at each temperature
    """

    widths: tuple[int, ...] = (12, 24, 48, 96)
    steps: int = 2000
    batch: int = 4
    context: int = 128
    rate: float = 6e-3
    exponent: float = -0.85
    temperatures: tuple[float, ...] = (0.0, 0.4, 0.7, 1.0)
    prompt: int = 32
    rows: int = 128
    seed: int = 0
    text: str = ""
    executor: str = "processes"


QUICK = Settings(widths=(12, 24, 48), steps=600, rows=64)


class Job(NamedTuple):
    """One model."""

    width: int
    settings: Settings


def run(settings: Settings, folder: Path, workers: int, report: Report) -> Result:
    """Train every size and let it write."""
    s = settings
    rows, real = [], {}
    jobs = [(f"d{d}", Job(d, s)) for d in sorted(s.widths, reverse=True)]
    for name, found in each(written, jobs, workers, folder / "models", s.executor):
        rows += found["rows"]
        real = found["real"]
        loops = ", ".join(f"{100 * row['loops']:.0f} % at {row['temperature']:g}" for row in found["rows"])
        report(f"{name}: loss {found['rows'][0]['loss']:.3f} nats/character; loops {loops}")
    rows.sort(key=lambda row: (row["parameters"], row["temperature"]))
    return {"tables": {"texts": rows}, "numbers": {"real_text": real}}


def written(job: Job) -> dict[str, Any]:
    """Train one model and judge what it writes."""
    s = job.settings
    text = corpus.load(s.text or None)
    config, model = sweep.config_of(job.width, text.vocab_size, s.context), architecture(sweep.ARCHITECTURE)
    grid = sweep.Settings(batch=s.batch, context=s.context, text=s.text)
    training = sweep.training_of(sweep.Task(job.width, s.seed, s.rate * (job.width / 24) ** s.exponent, s.steps, grid))

    def batch_at(step: int) -> Any:
        return corpus.batch(text.train, s.seed, step, batch=s.batch, context=s.context)

    (snapshot,) = learn(sweep.ARCHITECTURE, config, training, batch_at, [s.steps])
    windows = corpus.evaluation(text.held_out, count=s.rows, context=s.context)
    about = {
        "width": job.width,
        "parameters": accounting.parameters(model, config).total,
        "loss": sweep.loss_of(snapshot.averaged, config, windows),
    }
    prompts = windows[0][:, : s.prompt].tolist()
    rows = []
    for temperature in s.temperatures:
        sampler = Sampler(temperature=temperature)
        steps = generate(Model(model, config, snapshot.averaged), prompts, s.context - s.prompt, sampler, s.seed)
        rows.append(about | {"temperature": temperature} | described(np.stack([step.tokens for step in steps], axis=1)))
    return {"rows": rows, "real": described(windows[0][:, s.prompt :])}


def described(texts: np.ndarray) -> dict[str, Any]:
    """The share of texts (n, T) that loop, with its interval, and their mean distinct-n."""
    share = wilson(sum(map(loops, texts)), len(texts))
    distinct = float(np.mean([distinct_share(text) for text in texts]))
    return {"loops": share.value, "low": share.low, "high": share.high, f"distinct_{N_GRAM}": distinct, "texts": share.n}


def loops(text: np.ndarray) -> bool:
    """Whether the end of a text (T,) repeats with some period."""
    for period in range(1, PERIODS + 1):
        span = max(SPAN, 3 * period)
        if span <= len(text) and np.array_equal(text[-span:-period], text[len(text) - span + period :]):
            return True
    return False


def distinct_share(text: np.ndarray, n: int = N_GRAM) -> float:
    """The share of a text's n-grams that differ."""
    grams = np.lib.stride_tricks.sliding_window_view(text, n)
    return len(np.unique(grams, axis=0)) / len(grams)


def figures(result: Result) -> dict[str, Any]:
    """Loops and distinct-n against N, a line for each temperature; real text dotted."""
    from refllm.lab import plots

    rows, real = result["tables"]["texts"], result["numbers"]["real_text"]
    figure, panels = plots.new_figure(plots.LABELS["parameters"], "share of texts that end in a loop", panels=2)
    panels[1].set_ylabel(f"distinct {N_GRAM}-grams, share", color=plots.INK)
    for axes, column in zip(panels, ("loops", f"distinct_{N_GRAM}"), strict=True):
        for i, temperature in enumerate(sorted({row["temperature"] for row in rows})):
            mine, color = [row for row in rows if row["temperature"] == temperature], plots.COLORS[i % len(plots.COLORS)]
            x = [row["parameters"] for row in mine]
            if column == "loops":
                axes.fill_between(x, [r["low"] for r in mine], [r["high"] for r in mine], color=color, alpha=0.15, linewidth=0)
            axes.plot(x, [row[column] for row in mine], marker="o", color=color, label=f"temperature {temperature:g}")
        axes.axhline(real[column], linestyle=":", color=plots.INK, label="real text")
        axes.set_ylim(-0.03, 1.03)
        plots.logarithmic(axes, y=False)
    handles = panels[0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=len(handles[0]), frameon=False, fontsize=9, labelcolor=plots.INK)
    return {"loops": figure}


def judge_repetition(results: Mapping[str, Any]) -> Finding:
    """Claim 11, of all temperatures together: how much rarer loops are in the largest model than in each smaller one, the least
    such difference.
    """
    rows = sorted(results[NAME]["tables"]["texts"], key=lambda row: (row["parameters"], row["temperature"]))
    shares = []
    for size in dict.fromkeys(row["parameters"] for row in rows):
        mine = [row for row in rows if row["parameters"] == size]
        shares.append(wilson(round(sum(row["loops"] * row["texts"] for row in mine)), sum(row["texts"] for row in mine)))
    if len(shares) < 2:
        raise ValueError("one size tells nothing of scale; let models of two sizes or more write.")
    rarer, low, high = min(difference(smaller, shares[-1]) for smaller in shares[:-1])
    verdict = HOLDS if low > 0 else FAILS if high < 0 else UNDECIDABLE
    coldest = [100 * row["loops"] for row in rows if row["temperature"] == rows[0]["temperature"]]
    why = (
        f"Loops in {', '.join(f'{100 * share.value:.0f} %' for share in shares)} of texts by rising N, at temperature "
        f"{rows[0]['temperature']:g} in {', '.join(f'{share:.0f} %' for share in coldest)}; "
        f"in real text {100 * results[NAME]['numbers']['real_text']['loops']:.0f} %."
    )
    return Finding(rarer, low, high, "fewer texts loop, largest N", verdict, why)


def difference(one: Share, other: Share) -> tuple[float, float, float]:
    """How much larger one share is than another, with Newcombe's interval (1998, method 10, doi:
    10.1002/(SICI)1097-0258(19980430)17:8<873::AID-SIM779>3.0.CO;2-I).
    """
    value = one.value - other.value
    below, above = (one.value - one.low, other.high - other.value), (one.high - one.value, other.value - other.low)
    return value, value - math.hypot(*below), value + math.hypot(*above)


CLAIMS = (
    Claim(
        11,
        "Small models get stuck in repetition; scale makes it rarer.",
        "texts that end in a loop, each smaller model's less the largest's, all temperatures; holds if the interval is above 0",
        "greedy and beam-searched texts of GPT-2 large loop: Holtzman 2020",
        (NAME,),
        judge_repetition,
    ),
)
