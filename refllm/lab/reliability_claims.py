"""Claims 6 to 9, judged from the experiment on emergence: errors compound, abilities emerge, models err and are cured."""

import math
from collections.abc import Mapping
from typing import Any

from refllm.evaluation.metrics import Z, wilson
from refllm.lab.trend import trend
from refllm.lab.verdict import FAILS, HOLDS, UNDECIDABLE, Claim, Finding, within

Results = Mapping[str, Any]
Rows = list[dict[str, Any]]
CLEAR = 2.0  # evidence that tells a line from a step


def table(results: Results, name: str, task: str) -> Rows:
    """A table's rows of one task, by size."""
    rows = [row for row in results["emergence"]["tables"][name] if row["task"] == task]
    return sorted(rows, key=lambda row: row["parameters"])


def judge_yield(results: Results) -> Finding:
    """Claim 6. p^n of the facts, whose steps are alike, at every length of the models that are neither always right nor
    never; the interval is that of so many items. Sums, whose steps are not alike, are told beside it.
    """
    items = {row["parameters"]: row["items"] for row in table(results, "sizes", "facts")}
    off = [(abs(row["measured"] - row["p^n"]), row) for row in informative(table(results, "yields", "facts"))]
    if not off:
        raise ValueError("every model knows all facts or none, so no yield lies between 0 and 1; take other sizes.")
    value, row = max(off, key=lambda pair: pair[0])
    share = wilson(round(row["measured"] * items[row["parameters"]]), items[row["parameters"]])
    reach = (share.high - share.low) / 2
    low, high = max(0.0, value - reach), value + reach
    product = max(abs(row["measured"] - row["product"]) for _, row in off)
    sums = informative(table(results, "yields", "addition"))
    apart = (
        ""
        if not sums
        else (
            f" In sums, where steps are not alike, p^n is off by {max(abs(r['measured'] - r['p^n']) for r in sums):.3f}, "
            f"the product by {max(abs(r['measured'] - r['product']) for r in sums):.3f}."
        )
    )
    why = (
        f"At length {row['length']} and N = {row['parameters']:,}: {row['measured']:.3f} measured, p^n {row['p^n']:.3f}; "
        f"over all lengths and sizes the product by position is off by {product:.3f} at most.{apart}"
    )
    return Finding(value, low, high, "off p^n at most", within(value, low, high, 0, 0.05), why)


def informative(rows: Rows) -> Rows:
    """The yields of models that get some items right and some wrong."""
    ends = {row["parameters"]: row["measured"] for row in sorted(rows, key=lambda row: row["length"])}
    return [row for row in rows if 0.005 < ends[row["parameters"]] < 0.995]


def judge_emergence(results: Results) -> Finding:
    """Claim 7. For each task: whether exact match jumps with N, and whether the loss does so too, as `evidence` tells."""
    shapes, verdicts, said, found = results["emergence"]["numbers"]["shapes"], [], [], []
    for task in ("facts", "addition"):
        rows = table(results, "sizes", task)
        loss, score = (evidence(shapes[f"{task}: {metric}"], len(rows)) for metric in ("nats_per_answer", "exact_match"))
        found.append(loss)
        said.append(f"{task}: loss {shape(loss)} ({loss:+.1f}), exact match {shape(score)} ({score:+.1f})")
        if max(row["exact_match"] for row in rows) < 0.5:
            verdicts.append(UNDECIDABLE)
            said.append("no size masters it")
        else:
            verdicts.append(FAILS if loss <= -CLEAR else HOLDS if loss >= CLEAR > score else UNDECIDABLE)
    verdict = FAILS if FAILS in verdicts else HOLDS if set(verdicts) == {HOLDS} else UNDECIDABLE
    return Finding(min(found), None, None, "evidence that a loss is no step", verdict, f"Over ln N, {'; '.join(said)}.")


def evidence(errors: Mapping[str, float], n: int) -> float:
    """How much a line in ln N describes n values better than a step: the difference of Schwarz's criterion (1978), in which
    a step has one constant more, its place. Above 2 it is positive evidence for the line, below −2 for the step (Kass &
    Raftery 1995, doi:10.1080/01621459.1995.10476572).
    """
    least = 1e-12
    return n * math.log((errors["step"] + least) / (errors["line"] + least)) + math.log(n)


def shape(found: float) -> str:
    """What the evidence says."""
    return "a line" if found >= CLEAR else "a step" if found <= -CLEAR else "a line or a step"


def judge_causes(results: Results) -> Finding:
    """Claim 8. A's share of the errors is taken exactly, from probabilities: the chance to err where the right answer is the
    likeliest, over all chance to err. Whether it rises with N is asked of each task by a rank correlation.
    """
    trends, said = [], []
    for task in ("facts", "addition"):
        rows = table(results, "sizes", task)
        shares = [row["cured_by_greedy"] for row in rows]
        trends.append(trend([row["parameters"] for row in rows], shares).verdict(rising=True))
        causes = " ".join(row["causes"] or "none" for row in rows)
        said.append(f"{task} A {shares[0]:.2f} to {shares[-1]:.2f}, causes by rising N: {causes}")
    facts = table(results, "sizes", "facts")
    rise = facts[-1]["cured_by_greedy"] - facts[0]["cured_by_greedy"]
    named = {letter for row in results["emergence"]["tables"]["sizes"] for letter in row["causes"] if letter in "ABC"}
    agree = HOLDS if set(trends) == {HOLDS} else FAILS if FAILS in trends else UNDECIDABLE
    verdict = UNDECIDABLE if agree == HOLDS and named != set("ABC") else agree
    return Finding(rise, None, None, "rise of A's share, facts", verdict, f"{'; '.join(said)}.")


def judge_cures(results: Results) -> Finding:
    """Claim 9. Noise costs what greedy answers are right more often than drawn ones; the majority must regain it and no more.
    C is cured by training where a larger model has a skill that a smaller one lacks.
    """
    costs, regained, beyond, skills = 0.0, [], [], []
    for task in ("facts", "addition"):
        bought = table(results, "inference", task)
        for size in sorted({row["parameters"] for row in bought}):
            mine = sorted((row for row in bought if row["parameters"] == size), key=lambda row: row["attempts"])
            cost = mine[0]["greedy"] - mine[0]["majority"]
            beyond.append(mine[-1]["majority"] - mine[-1]["greedy"])
            if cost > 0.03:
                costs += cost
                regained.append(mine[-1]["majority"] - mine[0]["majority"])
        sizes = table(results, "sizes", task)
        lacking = [row for row in sizes if "C" in row["causes"] and row["exact_match"] < 0.1]
        later = [row for row in sizes if row["exact_match"] > 0.9 and lacking and row["parameters"] > lacking[0]["parameters"]]
        if later:
            skills.append(f"{task} at N = {later[0]['parameters']:,}")
    if not regained:
        raise ValueError("no model is right more often by its likeliest answer than by chance; take other sizes or more steps.")
    share = sum(regained) / costs
    reach = Z * math.sqrt(len(regained)) * 0.5 / math.sqrt(300) / costs  # of shares among 300 questions a size, at their widest
    attempts = max(row["attempts"] for row in results["emergence"]["tables"]["inference"])
    noise = within(share, share - reach, share + reach, 0.8, 1.2)
    verdict = FAILS if skills else noise
    why = (
        f"A majority of {attempts} regains {100 * share:.0f} % of what noise costs, and is right "
        f"{100 * max(beyond):.0f} points more often than greedy at best. "
        + (f"But scale cures C: {' and '.join(skills)}." if skills else "No size gained a skill.")
    )
    why += f" {larger_or_more(results)}"
    return Finding(share, share - reach, share + reach, "of noise cured by a majority", verdict, why)


def larger_or_more(results: Results) -> str:
    """At equal total FLOPs, how often a larger model asked less beats a smaller one asked more, both by majority."""
    wins, pairs = 0, 0
    for task in ("facts", "addition"):
        rows = table(results, "inference", task)
        for row in rows:
            larger = [r for r in rows if r["parameters"] > row["parameters"] and r["total_flops"] <= row["total_flops"]]
            if row["attempts"] > 1 and larger:
                pairs += 1
                wins += max(r["majority"] for r in larger) >= row["majority"]
    return f"At equal FLOPs a larger model asked less was as good in {wins} of {pairs} cases." if pairs else ""


CLAIMS = (
    Claim(
        6,
        "99.9 % per token over 1,000 tokens is 36.8 %; 99.99 % is 90 %.",
        f"p^n ({0.999**1000:.3f}, {0.9999**1000:.3f}); holds if exact match of facts is within .05 of it at every length",
        "exact match ≈ p^n: Schaeffer 2023",
        ("emergence",),
        judge_yield,
    ),
    Claim(
        7,
        "Abilities emerge with scale; or: sharp metrics over smooth losses.",
        "n·ln(squared error of a step / of a line) + ln n over ln N; the mirage holds if ≥ 2 for every loss and not for exact "
        "match, and fails if a loss has ≤ −2",
        "> 92 % of BIG-Bench's emergent tasks are scored by multiple choice or exact match: Schaeffer 2023",
        ("emergence",),
        judge_emergence,
    ),
    Claim(
        8,
        "Errors are random noise (A), hard steps (B) or missing skills (C), and scale leaves noise.",
        "A = Σ(1 − p) where the likeliest answer is right / Σ(1 − p); holds if it rises with N in each task (Kendall, 5 %) and "
        "all three causes occur",
        "",
        ("emergence",),
        judge_causes,
    ),
    Claim(
        9,
        "More training cures A and B, more samples cure A, neither cures C.",
        "(majority@64 − pass@1) / (greedy − pass@1) at equal FLOPs; holds if 0.8 to 1.2 and no larger model has a skill that "
        "smaller ones lack",
        "coverage rises from 15.9 % to 56 % with 250 samples (SWE-bench Lite): Brown 2024",
        ("emergence",),
        judge_cures,
    ),
)
