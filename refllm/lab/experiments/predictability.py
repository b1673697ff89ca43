"""Bits per word of texts of rising predictability, and their arithmetic code, which is as long.

A transformer and n-grams are trained on all kinds of text and tested on words of a held-out part; or the user's own model is
tested. A model's probabilities drive an arithmetic coder, and a decoder with the same probabilities decodes the texts again.
N-grams see only the last few characters, too few to notice a repetition: what is predictable depends on the model.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from refllm.array_api import generator
from refllm.evaluation.metrics import Z
from refllm.lab.experiment import Report, Result
from refllm.lab.materials import forecasters, units
from refllm.lab.materials.arithmetic_coder import precision
from refllm.lab.materials.forecasters import Forecaster, Rows, decoded, encoded
from refllm.lab.materials.text_kinds import KINDS, LETTERS, Source, sources
from refllm.lab.running.pool import each
from refllm.lab.verdict import FAILS, HOLDS, UNDECIDABLE, Claim, Finding

NAME = "predictability"
SUMMARY = {
    "texts": ("model", "kind", "bits_per_byte", "bits_per_word", "coded_bits", "bits_over"),
    "comparisons": ("model", "harder", "easier", "difference", "low", "high"),
}
TRAINED, CHECKPOINT = ("transformer", "n-grams"), "checkpoint"
AGREE = 1e-4  # relative difference between −Σ log2 p step by step and in one pass: sums in float32 in another order
ENDING = 2  # bits by which an arithmetic code may exceed −Σ log2 p, besides the precision of its frequencies


@dataclass(frozen=True)
class Settings:
    """The defaults take a minute on two cores.

    checkpoint: the user's model, a folder or a file; "" for a small transformer and n-grams that are trained here
    width: the transformer's d_model    steps: its updates, each on `batch` texts    order: of the n-grams
    length: characters of a text, at most    texts: of each kind, to measure and to code
    text: a file or a folder with the words; "" for Python's standard library
    """

    checkpoint: str = ""
    width: int = 64
    steps: int = 1200
    batch: int = 12
    length: int = 128
    order: int = 6
    texts: int = 96
    text: str = ""
    seed: int = 0
    executor: str = "processes"

    def __post_init__(self) -> None:
        if self.texts < 2:
            raise ValueError(f"texts={self.texts} give no interval; at least 2 of each kind are needed.")
        if self.length < 2:
            raise ValueError(f"length={self.length} must be at least 2 characters, room for a word and its successor.")
        if self.order < 1:
            raise ValueError(f"order={self.order} must be at least 1: 1-grams are the characters.")


QUICK = Settings(width=32, steps=500, texts=32)


def run(settings: Settings, folder: Path, workers: int, report: Report) -> Result:
    """Train the models, or load the user's, and let each measure and code texts of every kind."""
    names = [CHECKPOINT] if settings.checkpoint else list(TRAINED)
    tasks = [(name, (name, settings)) for name in names]
    found = {}
    for name, result in each(judged, tasks, workers, folder / "models", settings.executor):
        found[name] = result
        for row in result["texts"]:
            report(f"{name}, {row['kind']}: {row['bits_per_byte']:.2f} bits per byte, {row['bits_per_word']:.1f} per word")
    tables = {table: [row for name in names for row in found[name][table]] for table in SUMMARY}
    return {"tables": tables, "numbers": {"bits_of_a_random_letter": math.log2(len(LETTERS))}}


def judged(task: tuple[str, Settings]) -> Result:
    """One model: the bits that texts of every kind take, and how many more each kind takes than the next."""
    name, s = task
    learned_from, asked_about = sources(s.text, s.length)
    model = forecaster(name, learned_from, s)
    rows, costs = [], []
    for kind in KINDS:
        row, per_byte = measured(model, asked_about, kind, s)
        rows.append({"model": name, "kind": kind} | row)
        costs.append(per_byte)
    comparisons = [
        {"model": name, "harder": KINDS[i], "easier": KINDS[j]} | interval(costs[i] - costs[j], "difference")
        for i, j in pairwise(range(len(KINDS)))
    ]
    return {"texts": rows, "comparisons": comparisons}


def forecaster(name: str, source: Source, s: Settings) -> Forecaster:
    """The model of that name: the user's, or one trained on texts from the source, each of a kind drawn at random."""
    if name == CHECKPOINT:
        return forecasters.checkpoint(s.checkpoint)

    def rows_at(step: int) -> Rows:
        rng = generator(s.seed, "predictability", step)
        return [source.ids(source.draw(KINDS[k], rng, s.length)) for k in rng.integers(0, len(KINDS), s.batch)]

    V = len(source.symbols)
    if name == TRAINED[0]:
        return forecasters.transformer(rows_at, source.ids, V, length=s.length, steps=s.steps, width=s.width, seed=s.seed)
    return forecasters.counted(rows_at, source.ids, V, steps=s.steps, order=s.order)


def measured(model: Forecaster, source: Source, kind: str, s: Settings) -> tuple[dict[str, Any], np.ndarray]:
    """A row with the bits that texts of a kind take under a model and in its code; and the bits per byte of each text, (texts,).

    The texts of different kinds are paired: the n-th of each is drawn from the same random numbers.
    """
    texts = [source.draw(kind, generator(s.seed, "judged", i), s.length) for i in range(s.texts)]
    rows = [model.ids(text) for text in texts]
    nats = model.nats(rows)
    costs = [units.surprise(text, math.fsum(row)) for text, row in zip(texts, nats, strict=True)]
    total, per_byte = units.together(costs), np.array([cost.per_byte for cost in costs])
    code, n_bits, p = encoded(rows, model)
    predicted = -math.fsum(np.log2(p))
    again = decoded(code, [row[0] for row in rows], [len(row) for row in rows], model)
    row = interval(per_byte, "bits_per_byte") | {
        "bits_per_word": total.per_word,
        "bytes": total.n_bytes,
        "tokens": sum(map(len, nats)),
        "model_bits": total.bits,
        "predicted_bits": predicted,
        "coded_bits": n_bits,
        "bits_over": n_bits - predicted,
        "coded_bytes": len(code),
        "precision_bits": precision(p, model.vocab_size),
        "given_back": again == rows,
    }
    return row, per_byte


def interval(values: np.ndarray, name: str) -> dict[str, float]:
    """The mean of values (n,) and its 95 % interval."""
    mean, reach = float(values.mean()), Z * float(values.std(ddof=1)) / math.sqrt(len(values))
    return {name: mean, "low": mean - reach, "high": mean + reach}


def figures(result: Result) -> dict[str, Any]:
    """Bits per byte of every kind with intervals, and how much longer the codes are than −Σ log₂ p."""
    from refllm.lab import plots

    figure, (bits, codes) = plots.new_figure("", "bits per byte", panels=2)
    rows = result["tables"]["texts"]
    models = list(dict.fromkeys(row["model"] for row in rows))
    for i, name in enumerate(models):
        mine = [row for row in rows if row["model"] == name]
        x = [KINDS.index(row["kind"]) + 0.16 * (i - (len(models) - 1) / 2) for row in mine]
        y = [row["bits_per_byte"] for row in mine]
        error = [[row["bits_per_byte"] - row["low"] for row in mine], [row["high"] - row["bits_per_byte"] for row in mine]]
        style = {"color": plots.COLORS[i], "marker": plots.MARKERS[i], "linestyle": "", "label": name}
        bits.errorbar(x, y, error, markersize=5, capsize=3, **style)
        x, y = [row["predicted_bits"] for row in mine], [row["bits_over"] for row in mine]
        codes.errorbar(x, y, [row["precision_bits"] for row in mine], markersize=5, capsize=3, **style)
    least = result["numbers"]["bits_of_a_random_letter"]
    bits.plot([-0.3, 0.3], [least, least], color=plots.INK, linewidth=1, label="log₂ 27")
    bits.set_xticks(range(len(KINDS)), [kind.replace(" ", "\n") for kind in KINDS])
    bits.set_ylim(0, None)
    codes.axhspan(0, ENDING, color=plots.FAINT, alpha=0.15, linewidth=0, label=f"0 to {ENDING} bits")
    codes.set_xlabel("−Σ log₂ p under the model (bits)", color=plots.INK)
    codes.set_ylabel("bits of the arithmetic code beyond these", color=plots.INK)
    plots.logarithmic(codes, y=False)
    for axes in (bits, codes):
        plots.legend(axes)
    return {"predictability": figure}


def judge_bits(results: Mapping[str, Any]) -> Finding:
    """Claim 5, of the transformer or the user's model. It fails where a code of any model does not decode to its texts; where its
    length is off −Σ log₂ p by more than the precision of its frequencies, and 2 bits above, as theory allows (Witten 1987); where
    one pass and the coder's steps differ in −Σ log₂ p by more than a share AGREE; where random letters take fewer bits than their
    entropy; or where a kind of text takes more than the one before it. It holds where each takes fewer. The 95 % intervals of the
    bits per byte, and of their differences between paired texts, decide; otherwise it is undecidable.
    """
    tables, numbers = results[NAME]["tables"], results[NAME]["numbers"]
    rows = tables["texts"]
    back = sum(row["given_back"] for row in rows)
    exact = all(
        abs(row["predicted_bits"] - row["model_bits"]) <= AGREE * row["model_bits"]
        and -row["precision_bits"] <= row["bits_over"] <= ENDING + row["precision_bits"]
        for row in rows
    )
    mine = {row["kind"]: row for row in rows if row["model"] in (TRAINED[0], CHECKPOINT)}
    steps = [row for row in tables["comparisons"] if row["model"] in (TRAINED[0], CHECKPOINT)]
    too_few = mine[KINDS[0]]["high"] < numbers["bits_of_a_random_letter"]
    if back < len(rows) or not exact or too_few or any(step["high"] < 0 for step in steps):
        verdict = FAILS
    else:
        verdict = HOLDS if all(step["low"] > 0 for step in steps) else UNDECIDABLE
    falling = ", ".join(f"{kind} {mine[kind]['bits_per_byte']:.2f}" for kind in KINDS)
    least = min(steps, key=lambda step: step["low"])
    why = (
        f"Bits per byte: {falling}; {least['easier']} takes {least['difference']:.2f} [{least['low']:.2f}, {least['high']:.2f}] "
        f"fewer than {least['harder']}; {back} of {len(rows)} codes decode to their texts, and are at most "
        f"{max(row['bits_over'] for row in rows):.1f} bits longer than −Σ log₂ p."
    )
    text = mine["text"]
    per_word = text["bits_per_word"] / text["bits_per_byte"]
    return Finding(text["bits_per_word"], text["low"] * per_word, text["high"] * per_word, "bits per word", verdict, why)


CLAIMS = (
    Claim(
        number=5,
        statement="Bits per word say how many yes–no questions a word takes; predictable text takes fewer.",
        formula="length of an arithmetic code = −Σ log₂ p + 0 … 2 bits; letters > shuffled words > text > repetition > counting",
        published="",
        needs=(NAME,),
        judge=judge_bits,
    ),
)
