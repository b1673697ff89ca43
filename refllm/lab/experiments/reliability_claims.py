"""Claims 6 to 9, judged from the experiment `emergence`: errors compound, abilities emerge, errors have causes and cures."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from refllm.lab.experiments.emergence import largest_error
from refllm.lab.reliability.trend import trend
from refllm.lab.seeds import over_seeds
from refllm.lab.verdict import FAILS, HOLDS, UNDECIDABLE, Claim, Finding, together, within

Results = Mapping[str, Any]
Rows = list[dict[str, Any]]
TASKS = ("facts", "addition")
NEAR = 0.05  # the largest error of p^n, in exact match, at which it counts as the law
HALF = 0.5  # a cause of errors is cured where less than this share of it is left
LEAST = 0.01  # share of all answers: a cause of fewer errors is not tested
CAUSES = {"A": "noise", "B": "hard", "C": "missing"}


def table(results: Results, name: str, task: str) -> Rows:
    """A table's rows of one task, by size."""
    rows = [row for row in results["emergence"]["tables"][name] if row["task"] == task]
    return sorted(rows, key=lambda row: row["parameters"])


def judge_yield(results: Results) -> Finding:
    """Claim 6. p^n is compared with the exact match of facts, whose steps are equally hard, for every model at every length. The
    value is the largest error, with an interval corrected for being the largest of many. The claim holds where the interval lies
    below NEAR, and fails where it lies above. Otherwise it is undecidable. Sums, whose steps are not equally hard, and the
    product by position are reported but do not decide.
    """
    rows = [row for row in table(results, "yields", "facts") if 0.005 < row["measured"] < 0.995]
    if not rows:
        raise ValueError("every model recalls all facts or none, so no exact match lies between 0 and 1; take other sizes.")
    worst = max(rows, key=lambda row: abs(row["measured"] - row["p^n"]))
    value, low, high = off(results, "facts", "p^n")
    said = {(task, law): off(results, task, law)[0] for task in TASKS for law in ("p^n", "product")}
    why = (
        f"At length {worst['length']} and N = {worst['parameters']:,}, seed {worst['seed']}: "
        f"{worst['measured']:.3f} measured, p^n {worst['p^n']:.3f}; "
        f"over all lengths and models the product by position is off by {said['facts', 'product']:.4f} at most. In sums, whose "
        f"steps are not equally hard, p^n is off by {said['addition', 'p^n']:.3f}, the product by "
        f"{said['addition', 'product']:.4f}."
    )
    return Finding(value, low, high, "off p^n at most", within(value, low, high, 0, NEAR), why)


def off(results: Results, task: str, law: str) -> tuple[float, float, float]:
    """By how much a law is off a task's yields at most, with its 95 % interval."""
    return largest_error(table(results, "yields", task), law)


def judge_emergence(results: Results) -> Finding:
    """Claim 7. Emergence is a mirage where the score is not a straight line in ln N although the loss does not jump. That holds
    where, in each task, a step is rejected for the loss and a line for exact match. It fails where, in a task, a line is rejected
    for the loss and a step is not. Each is a test at 5 %, its distribution simulated. Loss and exact match are both arithmetic
    means over seeds, so that seeds smooth one as much as the other. As the mean of seeds that jump at different sizes does not
    jump, it is undecidable where some seed's loss by itself can only be a step, or where no size masters the task. The value is
    the larger p-value of a step among the two tasks' losses.
    """
    shapes, verdicts, said, chances = results["emergence"]["numbers"]["shapes"], [], [], []
    for task in TASKS:
        if f"{task}: exact_match" not in shapes:
            raise ValueError("fewer than five sizes cannot tell a line from a step; take more.")
        loss, score = shapes[f"{task}: nats_per_answer"], shapes[f"{task}: exact_match"]
        chances.append(loss["step"])
        told = ", ".join(
            f"{name} {found['shape']} (p of a line {found['line']:.3f}, of a step {found['step']:.3f})"
            for name, found in (("loss", loss), ("exact match", score))
        )
        said.append(f"{task}: {told}, by itself the loss of {loss['jumps']} of {loss['seeds']} seeds a step")
        if max(row["exact_match"] for row in table(results, "means", task)) < 0.5:
            verdicts.append(UNDECIDABLE)
            said.append("no size masters it")
        else:
            mirage = loss["shape"] in ("a line", "neither") and score["shape"] in ("a step", "neither")
            verdicts.append(FAILS if loss["shape"] == "a step" else HOLDS if mirage and not loss["jumps"] else UNDECIDABLE)
    return Finding(max(chances), None, None, "p of a loss's step", together(verdicts), f"Over ln N, {'; '.join(said)}.")


def judge_causes(results: Results) -> Finding:
    """Claim 8. The battery of tests divides each model's errors among A, B and C. The claim holds where, in each task, A's
    share rises with N, by a rank correlation over all models that err, and is more than HALF of the errors at the largest size
    that errs, in the mean over seeds. It fails where A's share falls in a task. Otherwise it is undecidable.
    """
    verdicts, said, rises = [], [], []
    for task in TASKS:
        rows = [row for row in table(results, "sizes", task) if row["noise"] + row["hard"] + row["missing"] > 0]
        if len({row["parameters"] for row in rows}) < 2:
            raise ValueError(f"fewer than two sizes err in {task}, so there is no trend to test; take smaller ones.")
        found = trend([row["parameters"] for row in rows], [row["noise"] for row in rows])
        shares = [[float(np.mean([row[cause] for row in size])) for size in ends(rows)] for cause in CAUSES.values()]
        first, last = shares[0]
        verdict = found.verdict(rising=True)
        verdicts.append(UNDECIDABLE if verdict == HOLDS and last <= HALF else verdict)
        rises.append(last - first)
        told = ", ".join(f"{letter} {low:.2f} to {high:.2f}" for letter, (low, high) in zip(CAUSES, shares, strict=True))
        said.append(f"{task} {told} (τ of A {found.tau:.2f}, {len(rows)} models)")
    why = f"Shares at the smallest and the largest size that errs: {'; '.join(said)}."
    return Finding(min(rises), None, None, "rise of A's share", together(verdicts), why)


def ends(rows: Rows) -> tuple[Rows, Rows]:
    """The models of the smallest and of the largest size."""
    sizes = [row["parameters"] for row in rows]
    least, most = ([row for row in rows if row["parameters"] == size] for size in (min(sizes), max(sizes)))
    return least, most


def judge_cures(results: Results) -> Finding:
    """Claim 9, in three parts, each of which must hold. More samples cure A and nothing else: a majority vote recovers 0.8 to 1.2
    of the cost of noise, which is how much more often the most likely answer is right than a sampled one; all models get the same
    questions, and the 95 % interval resamples these. More training cures A and B: their errors, as a share of all answers and in
    the mean over seeds, are fewer than HALF as many at the largest size as at the smallest, in each task. It does not cure C:
    its errors are not, in any task. A task in which a cause makes less than LEAST of the answers of the smallest size wrong does
    not count for it.
    """
    cure = results["emergence"]["numbers"]["cure"]
    if cure is None:
        raise ValueError("no model's most likely answers are right more often than sampled ones; take other sizes or more steps.")
    noise = within(cure["share"], cure["low"], cure["high"], 0.8, 1.2)
    cured: dict[str, list[str]] = {"A and B": [], "C": []}
    said = []
    for task in TASKS:
        sizes = ends(table(results, "sizes", task))
        for name, causes in (("A and B", ("noise", "hard")), ("C", ("missing",))):
            before, after = (
                float(np.mean([row["error_rate"] * sum(row[cause] for cause in causes) for row in size])) for size in sizes
            )
            if before >= LEAST:
                cured[name].append(HOLDS if after < HALF * before else FAILS)
            said.append(f"{task} {name} {before:.3f} to {after:.3f}")
    training = together(cured["A and B"])
    lasting = together([FAILS if verdict == HOLDS else HOLDS for verdict in cured["C"]])
    bought = [row for task in TASKS for row in table(results, "inference", task)]
    most = max(row["attempts"] for row in bought)
    beyond = max(row["majority"] - row["greedy"] for row in bought if row["attempts"] == most)
    why = (
        f"A majority of {most} recovers {100 * cure['share']:.0f} % of the cost of noise, and is up to {100 * beyond:.0f} points "
        f"more accurate than greedy. Share of answers wrong, from the smallest to the largest size: {', '.join(said)}. "
        f"{larger_or_more(results)}"
    )
    verdict = together([noise, training, lasting])
    return Finding(cure["share"], cure["low"], cure["high"], "of noise cured by a majority", verdict, why.rstrip())


def larger_or_more(results: Results) -> str:
    """A sentence that tells how often a larger model with fewer samples is as good as a smaller one with more at no more total
    FLOPs, both by majority and in the mean over seeds; "" where there is no such pair.
    """
    wins, pairs = 0, 0
    for task in TASKS:
        rows = over_seeds(table(results, "inference", task), ("parameters", "attempts", "total_flops"), "majority")
        for row in rows:
            larger = [r for r in rows if r["parameters"] > row["parameters"] and r["total_flops"] <= row["total_flops"]]
            if larger:
                pairs += 1
                wins += max(r["majority"] for r in larger) >= row["majority"]
    return f"For the same FLOPs a larger model with fewer samples was as good in {wins} of {pairs} cases." if pairs else ""


CLAIMS = (
    Claim(
        6,
        "99.9 % per token over 1,000 tokens is 36.8 %; 99.99 % is 90 %.",
        f"p^n ({0.999**1000:.3f}, {0.9999**1000:.3f}); holds if exact match of facts is within {NEAR:g} of it at every length, "
        "size and seed",
        "exact match ≈ p^n: Schaeffer 2023",
        ("emergence",),
        judge_yield,
    ),
    Claim(
        7,
        "Abilities emerge with scale; or: sharp metrics over smooth losses.",
        "simulated p of a line and of a step over ln N, of seeds' means; the mirage holds if a step of every loss and a line of "
        "every exact match have p ≤ .05 and no seed's loss jumps, and fails if of a loss only the line has",
        "> 92 % of BIG-Bench's emergent tasks are scored by multiple choice or exact match: Schaeffer 2023",
        ("emergence",),
        judge_emergence,
    ),
    Claim(
        8,
        "Errors are random noise (A), hard steps (B) or missing skills (C), and scale leaves noise.",
        "A's share of the errors by the battery; holds if it rises with N in each task (Kendall over all models, 5 %) to more "
        "than half",
        "",
        ("emergence",),
        judge_causes,
    ),
    Claim(
        9,
        "More training cures A and B, more samples cure A, neither cures C.",
        "(majority@64 − pass@1) / (greedy − pass@1), and errors by cause of the largest over the smallest model; holds if the "
        "first is 0.8 to 1.2, A and B's less than 0.5 and C's not",
        "coverage rises from 15.9 % to 56 % with 250 samples (SWE-bench Lite): Brown 2024",
        ("emergence",),
        judge_cures,
    ),
)
