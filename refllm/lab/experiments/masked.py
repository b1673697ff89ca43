"""An autoregressive and a masked model of one toy language: which of the two gives probabilities of texts?

    log-likelihood          Σ_t log p(x_t | letters before)          one pass; exp of it sums to one over all texts of a length
    pseudo-log-likelihood   Σ_t log p(x_t | all other letters)       T passes (Salazar 2020, arXiv:1910.14659); it does not

All texts of a length are enumerated and their sums computed in float64. More training would not change the result: the
language's own conditional probabilities, which are known exactly, do not sum to one that way either.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from refllm.decoding import Sampler, generate
from refllm.lab.experiment import Report, Result
from refllm.lab.materials import toy_language, toy_models
from refllm.lab.materials.toy_language import V
from refllm.lab.materials.toy_models import BEGIN, Recipe, in_float64
from refllm.lab.running.pool import each
from refllm.lab.verdict import FAILS, HOLDS, Claim, Finding
from refllm.models.model import Model

NAME = "masked"
SUMMARY = {"sums": ("length", "autoregressive", "masked", "language"), "costs": ("model", "letters", "texts_read", "generates")}
EXACT = 1e-6  # a sum this close to one is one: rounding in float64 is far smaller


@dataclass(frozen=True)
class Settings:
    """The defaults take ten seconds.

    longest: letters of the longest texts, of which there are 4^longest    rate: the learning rate
    width: of both models, d_model    steps: updates of each, on `batch` texts
    """

    longest: int = 6
    width: int = 32
    steps: int = 600
    batch: int = 64
    rate: float = 3e-3
    seed: int = 0
    executor: str = "processes"

    def __post_init__(self) -> None:
        if not 2 <= self.longest <= 9:
            raise ValueError(f"longest={self.longest} must be 2 … 9: one letter has no context, and 4^9 texts are many.")


QUICK = Settings(longest=5, width=16, steps=300)


def run(settings: Settings, folder: Path, workers: int, report: Report) -> Result:
    """Train both models and sum over all texts, length by length."""
    found = dict(each(judged, [(name, (name, settings)) for name in KINDS], workers, folder / "models", settings.executor))
    rows = []
    for i, length in enumerate(range(1, settings.longest + 1)):
        rows.append(
            {
                "length": length,
                "texts": V**length,
                **{name: found[name]["sums"][i] for name in KINDS},
                "language": float(np.exp(toy_language.pseudo_log_likelihood(length)).sum()),
            }
        )
    report(f"sums over all texts of {settings.longest} letters: " + ", ".join(f"{name} {rows[-1][name]:.6f}" for name in KINDS))
    costs = [{"model": name} | found[name]["cost"] for name in KINDS]
    return {"tables": {"sums": rows, "costs": costs}, "numbers": {}}


def judged(task: tuple[str, Settings]) -> Result:
    """One model: its sums, how many passes a score takes, and whether it generates."""
    name, s = task
    kind = KINDS[name]
    model = in_float64(kind.train(Recipe(s.longest, s.width, s.steps, s.batch, s.rate, s.seed)))
    sums = [float(np.exp(kind.score(model, toy_language.every_text(n))).sum()) for n in range(1, s.longest + 1)]
    counting, read = counted(model)
    kind.score(counting, toy_language.every_text(1).repeat(s.longest, axis=1)[:1])
    try:
        text = [int(step.tokens[0]) for step in generate(model, [BEGIN], s.longest - 1, Sampler(1.0), s.seed)]
        wrote, refusal = f"{len(text)} letters", ""
    except ValueError as error:
        wrote, refusal = "refuses", str(error)
    cost = {"letters": s.longest, "texts_read": sum(read), "generates": wrote, "refusal": refusal}
    return {"sums": sums, "cost": cost}


def counted(model: Model) -> tuple[Model, list[int]]:
    """The same model, and a list to which every forward pass adds its number of rows."""
    rows: list[int] = []

    class Counting:
        def __getattr__(self, name: str) -> Any:
            return getattr(model.architecture, name)

        def forward(self, params: Any, tokens: Any, *rest: Any, **named: Any) -> Any:
            rows.append(tokens.shape[0])
            return model.architecture.forward(params, tokens, *rest, **named)

    return Model(Counting(), model.config, model.params, model.tokenizer), rows  # type: ignore[arg-type]  # it acts as the module


class Kind(NamedTuple):
    """A kind of model: how it is trained, and how it scores texts (R, T), (R,) in nats."""

    train: Callable[[Recipe], Model]
    score: Callable[[Model, np.ndarray], np.ndarray]


KINDS = {
    "autoregressive": Kind(toy_models.train_autoregressive, toy_models.log_likelihood),
    "masked": Kind(toy_models.train_masked, toy_models.pseudo_log_likelihood),
}


def figures(result: Result) -> dict[str, Any]:
    """The sums against the length of the texts."""
    from refllm.lab import plots

    figure, axes = plots.new_figure("length of the texts (letters)", "sum over all texts of that length")
    rows = result["tables"]["sums"]
    named = {
        "autoregressive": "exp(log-likelihood)",
        "masked": "exp(pseudo-log-likelihood)",
        "language": "exp(pseudo-log-likelihood) of the language itself",
    }
    for i, (name, label) in enumerate(named.items()):
        style = {"linestyle": "--"} if name == "language" else {"marker": plots.MARKERS[i], "markersize": 5}
        color = plots.COLORS[min(i, 1)]
        axes.plot([row["length"] for row in rows], [row[name] for row in rows], color=color, label=label, **style)
    axes.axhline(1, color=plots.INK, linewidth=0.8, linestyle=":", label="one", zorder=0)
    axes.set_ylim(0, None)
    axes.set_xticks([row["length"] for row in rows])
    plots.legend(axes)
    return {"sums": figure}


def judge_sums(results: Mapping[str, Any]) -> Finding:
    """Claim 16. It holds where the autoregressive model's probabilities of all texts of a length sum to one within EXACT, and it
    takes one pass and generates; and where the masked model's sum differs from one by more than EXACT at every length from two
    on, and it takes a pass for each letter and refuses to generate. Otherwise it fails: the sums are exact, so never undecidable.
    """
    rows, costs = results[NAME]["tables"]["sums"], {row["model"]: row for row in results[NAME]["tables"]["costs"]}
    reads_on, fills = costs["autoregressive"], costs["masked"]
    off = max(abs(row["autoregressive"] - 1) for row in rows)
    near = min(abs(row["masked"] - 1) for row in rows if row["length"] > 1)
    right = reads_on["texts_read"] == 1 and fills["texts_read"] == fills["letters"]
    right = right and not reads_on["refusal"] and bool(fills["refusal"])
    verdict = HOLDS if off <= EXACT and near > EXACT and right else FAILS
    last = rows[-1]
    why = (
        f"Over all {last['texts']:,} texts of {last['length']} letters exp(LL) sums to {last['autoregressive']:.6f} "
        f"and exp(PLL) to {last['masked']:.3f} (the language's own: {last['language']:.3f}); "
        f"passes to score one: {reads_on['texts_read']} and {fills['texts_read']}; "
        f"the masked model {'refuses to generate' if fills['refusal'] else 'generates'}."
    )
    return Finding(last["masked"], None, None, "sum of exp(PLL)", verdict, why)


CLAIMS = (
    Claim(
        number=16,
        statement="Masked models see both sides and cannot generate; autoregressive ones score and generate.",
        formula="Σ exp(LL) = 1 over all texts of a length from one pass; Σ exp(PLL) ≠ 1 from a pass for each token",
        published="",
        needs=(NAME,),
        judge=judge_sums,
    ),
)
