"""Bits per word of texts that are ever easier to foresee, and the code of just that length that a model makes of them.

A transformer and n-grams learn from all kinds of text alike, and are asked about words that they have not read. What they find
likely drives an arithmetic coder, and by the same forecasts a decoder reads its code back.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from refllm.array_api import generator
from refllm.evaluation.metrics import Z
from refllm.lab import forecasters, units
from refllm.lab.arithmetic_coder import precision
from refllm.lab.experiment import Report, Result
from refllm.lab.forecasters import Forecaster, decoded, encoded
from refllm.lab.pool import each
from refllm.lab.text_kinds import KINDS, LETTERS, SPACE, Source, sources
from refllm.lab.verdict import FAILS, HOLDS, UNDECIDABLE, Claim, Finding

NAME = "predictability"
SUMMARY = {"texts": ("model", "kind", "bits_per_byte", "bits_per_word", "coded_bits", "bits_over")}
MODELS = ("transformer", "n-grams")


@dataclass(frozen=True)
class Settings:
    """The defaults take a minute.

    width: of the transformer, d_model    steps: its updates, of `batch` texts of `length` characters    order: of the n-grams
    texts: of each kind, that are measured and coded    text: a file or a folder; "" for Python's standard library
    """

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
            raise ValueError(f"texts={self.texts} of each kind tell no interval; ask for 2 at least.")


QUICK = Settings(width=32, steps=500, texts=32)


def run(settings: Settings, folder: Path, workers: int, report: Report) -> Result:
    """Let both models learn, and measure and code texts of every kind."""
    rows = []
    tasks = [(name, (name, settings)) for name in MODELS]
    for name, found in each(judged, tasks, workers, folder / "models", settings.executor):
        for row in found["rows"]:
            report(f"{name}, {row['kind']}: {row['bits_per_byte']:.2f} bits per byte, {row['bits_per_word']:.1f} per word")
        rows += found["rows"]
    rows.sort(key=lambda row: (MODELS.index(row["model"]), KINDS.index(row["kind"])))
    return {"tables": {"texts": rows}, "numbers": {"bits_of_a_random_letter": math.log2(len(LETTERS))}}


def judged(task: tuple[str, Settings]) -> Result:
    """Let one model learn, and measure it."""
    name, s = task
    learned_from, asked_about = sources(s.text)
    V = len(learned_from.symbols)

    def ids_at(step: int) -> np.ndarray:
        rng = generator(s.seed, "predictability", step)
        return learned_from.ids([learned_from.draw(KINDS[k], rng, s.length) for k in rng.integers(0, len(KINDS), s.batch)])

    if name == "transformer":
        model = forecasters.transformer(ids_at, V, s.steps, s.width, s.seed)
    else:
        model = forecasters.counted(ids_at, V, s.steps, s.order)
    return {"rows": [{"model": name, "kind": kind} | measured(model, asked_about, kind, s) for kind in KINDS]}


def measured(model: Forecaster, source: Source, kind: str, s: Settings) -> dict[str, Any]:
    """Bits of texts of a kind by the model's own word with their 95 % interval, and those of the code."""
    rng = generator(s.seed, f"judged {kind}")
    texts = [source.draw(kind, rng, s.length) for _ in range(s.texts)]
    ids = source.ids(texts)
    nats = model.nats(ids)
    costs = [units.surprise(text + SPACE, float(row.sum())) for text, row in zip(texts, nats, strict=True)]
    bits, n_bytes = sum(cost.bits for cost in costs), sum(cost.n_bytes - len(SPACE) for cost in costs)
    each_text = np.array([cost.bits / (cost.n_bytes - len(SPACE)) for cost in costs])
    reach = Z * float(each_text.std(ddof=1)) / math.sqrt(len(texts))
    code, n_bits = encoded(ids, model.begin(len(texts)))
    again = decoded(code, ids[:, 0], s.length, model.begin(len(texts)))
    return {
        "bits_per_byte": bits / n_bytes,
        "low": bits / n_bytes - reach,
        "high": bits / n_bytes + reach,
        "bits_per_word": bits / sum(cost.n_words for cost in costs),
        "bytes": n_bytes,
        "model_bits": bits,
        "coded_bits": n_bits,
        "bits_over": n_bits - bits,
        "coded_bytes": len(code),
        "precision_bits": precision(np.exp(-nats.reshape(-1)), len(source.symbols)),
        "given_back": bool(np.array_equal(again, ids)),
    }


def figures(result: Result) -> dict[str, Any]:
    """Bits per byte of every kind with intervals; the length of the code against the model's bits."""
    from refllm.lab import plots

    figure, (bits, codes) = plots.new_figure("", "bits per byte", panels=2)
    for i, name in enumerate(MODELS):
        rows = [row for row in result["tables"]["texts"] if row["model"] == name]
        x = [KINDS.index(row["kind"]) + 0.16 * (i - 0.5) for row in rows]
        y = [row["bits_per_byte"] for row in rows]
        error = [[row["bits_per_byte"] - row["low"] for row in rows], [row["high"] - row["bits_per_byte"] for row in rows]]
        bits.errorbar(x, y, error, linestyle="", marker="o", markersize=5, capsize=3, color=plots.COLORS[i], label=name)
        codes.plot(
            [row["model_bits"] for row in rows], [row["coded_bits"] for row in rows], "o", color=plots.COLORS[i], label=name
        )
    floor = result["numbers"]["bits_of_a_random_letter"]
    bits.plot([-0.3, 0.3], [floor, floor], color=plots.INK, linewidth=1, label="log₂ 27")
    bits.set_xticks(range(len(KINDS)), [kind.replace(" ", "\n") for kind in KINDS])
    bits.set_ylim(0, None)
    longest = max(row["model_bits"] for row in result["tables"]["texts"])
    codes.plot([0, longest], [0, longest], color=plots.FAINT, linewidth=1, zorder=0)
    codes.set_xlabel("−Σ log₂ p under the model (bits)", color=plots.INK)
    codes.set_ylabel("length of the arithmetic code (bits)", color=plots.INK)
    for axes in (bits, codes):
        plots.legend(axes)
    return {"predictability": figure}


def judge_bits(results: Mapping[str, Any]) -> Finding:
    """Claim 5. It fails where a code does not give its text back, or differs from the model's bits by more than a byte and the
    precision of its frequencies; or where the transformer finds a text harder than one before it in this order: random letters,
    shuffled words, the text, and then both repetition and counting. It holds where the 95 % intervals in that order lie apart.
    """
    rows = results[NAME]["tables"]["texts"]
    wrong = [row for row in rows if not row["given_back"]]
    gaps = [abs(row["bits_over"]) for row in rows]
    too_far = any(gap > 8 + row["precision_bits"] for gap, row in zip(gaps, rows, strict=True))
    mine = {row["kind"]: row for row in rows if row["model"] == "transformer"}
    pairs = [(KINDS[0], KINDS[1]), (KINDS[1], KINDS[2]), (KINDS[2], KINDS[3]), (KINDS[2], KINDS[4])]
    words = mine["text"]
    per_word = words["bits_per_word"] / words["bits_per_byte"]
    if wrong or too_far or any(mine[b]["low"] > mine[a]["high"] for a, b in pairs):
        verdict = FAILS
    else:
        verdict = HOLDS if all(mine[b]["high"] < mine[a]["low"] for a, b in pairs) else UNDECIDABLE
    falling = ", ".join(f"{kind} {mine[kind]['bits_per_byte']:.2f}" for kind in KINDS)
    why = (
        f"Bits per byte: {falling}; {len(rows) - len(wrong)} of {len(rows)} codes gave their text back, "
        f"and none was further than {max(gaps):.1f} bits from the model's."
    )
    return Finding(words["bits_per_word"], words["low"] * per_word, words["high"] * per_word, "bits per word", verdict, why)


CLAIMS = (
    Claim(
        number=5,
        statement="Bits per word say how many yes–no questions a word takes; predictable text takes fewer.",
        formula="−Σ log₂ p = length of an arithmetic code ± 1 byte; letters > shuffled words > text > repetition, counting",
        published="",
        needs=(NAME,),
        judge=judge_bits,
    ),
)
