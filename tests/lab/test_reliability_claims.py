"""Claims about errors, judged on results that are made up."""

import numpy as np
import pytest

from refllm.lab import reliability_claims as claims
from refllm.lab.emergence import smooth_or_sharp
from refllm.lab.verdict import FAILS, HOLDS, UNDECIDABLE

N = (1e3, 2e3, 4e3, 8e3, 16e3, 32e3)


def result(**changed):
    """A result of six sizes whose facts are learned smoothly, and whose errors turn into noise; sums likewise."""
    how = {
        "loss": (2.5, 2.0, 1.5, 1.0, 0.5, 0.01),
        "sums": (2.5, 2.0, 1.5, 1.0, 0.5, 0.01),
        "exact": (0.0, 0.0, 0.0, 0.3, 0.9, 1.0),
        "noise": (0.1, 0.2, 0.3, 0.5, 0.7, 0.9),
        "causes": ("B", "B", "B+C", "A+B", "A", "A"),
        "off": 0.0,
        "regained": 1.0,
    } | changed
    sizes, yields, inference, shapes = [], [], [], {}
    for task, loss in (("facts", how["loss"]), ("addition", how["sums"])):
        for i, n in enumerate(N):
            about = {"task": task, "parameters": int(n)}
            row = {"exact_match": how["exact"][i], "cured_by_greedy": how["noise"][i], "causes": how["causes"][i], "items": 2000}
            sizes.append(about | row)
            p = how["exact"][i] ** 0.25
            for length in range(1, 5):
                off = how["off"] if 0 < p < 1 else 0
                yields.append(about | {"length": length, "measured": p**length + off, "p^n": p**length, "product": p**length})
            for k in (1, 64):
                drawn, greedy = 0.7 * how["exact"][i], how["exact"][i]
                majority = drawn + how["regained"] * (greedy - drawn) * (k > 1)
                inference.append(about | {"attempts": k, "greedy": greedy, "majority": majority, "total_flops": n * (1 + k / 40)})
        shapes[f"{task}: nats_per_answer"] = smooth_or_sharp(N, loss)
        shapes[f"{task}: exact_match"] = smooth_or_sharp(N, how["exact"])
    return {"emergence": {"tables": {"sizes": sizes, "yields": yields, "inference": inference}, "numbers": {"shapes": shapes}}}


@pytest.mark.parametrize(("off", "verdict"), [(0.0, HOLDS), (0.02, HOLDS), (0.045, UNDECIDABLE), (-0.09, FAILS)])
def test_a_yield_is_held_against_the_power(off, verdict):
    finding = claims.judge_yield(result(off=off))
    assert finding.verdict == verdict
    assert finding.value == pytest.approx(abs(off))
    assert finding.low <= finding.value <= finding.high


def test_models_that_know_all_or_nothing_say_nothing_of_yields():
    with pytest.raises(ValueError, match="take other sizes"):
        claims.judge_yield(result(exact=(0, 0, 0, 0, 1, 1)))


STEP = (2.5, 2.5, 2.5, 2.5, 0.1, 0.1)


@pytest.mark.parametrize(
    ("changed", "verdict"),
    [
        ({}, HOLDS),
        ({"sums": STEP}, FAILS),
        ({"sums": (2.5, 2.5, 2.1, 0.9, 0.2, 0.1)}, UNDECIDABLE),
        ({"exact": (0, 0, 0, 0, 0.1, 0.2)}, UNDECIDABLE),
        ({"exact": (0, 0.2, 0.4, 0.6, 0.8, 1.0)}, UNDECIDABLE),
    ],
)
def test_a_mirage_is_a_jump_of_the_score_alone(changed, verdict):
    assert claims.judge_emergence(result(**changed)).verdict == verdict


def test_evidence_is_schwarzs():
    assert claims.evidence({"line": 1.0, "step": 1.0}, 8) == pytest.approx(np.log(8))
    assert claims.evidence({"line": 1.0, "step": np.e}, 8) == pytest.approx(8 + np.log(8))


@pytest.mark.parametrize(
    ("changed", "verdict"),
    [
        ({}, HOLDS),
        ({"noise": (0.9, 0.7, 0.5, 0.3, 0.2, 0.1)}, FAILS),
        ({"noise": (0.3, 0.1, 0.5, 0.2, 0.4, 0.3)}, UNDECIDABLE),
        ({"causes": ("B", "B", "B", "A", "A", "")}, UNDECIDABLE),
    ],
)
def test_noise_must_be_what_scale_leaves(changed, verdict):
    assert claims.judge_causes(result(**changed)).verdict == verdict


@pytest.mark.parametrize(
    ("changed", "verdict", "says"),
    [
        ({"causes": ("B", "B", "B", "A", "A", "A")}, HOLDS, "No size gained a skill"),
        ({}, FAILS, "scale cures C: facts at N = 32,000"),
        ({"causes": ("B", "B", "B", "A", "A", "A"), "regained": 0.1}, FAILS, "regains 10 %"),
        ({"causes": ("B", "B", "B", "A", "A", "A"), "regained": 0.75}, UNDECIDABLE, "regains 75 %"),
        ({"causes": ("B", "B", "B", "A", "A", "A"), "regained": 2.0}, FAILS, "regains 200 %"),
        (
            {"causes": ("A", "A", "A", "A", "A", "C"), "exact": (0.95, 0.5, 0.3, 0.3, 0.05, 0.05)},
            HOLDS,
            "No size gained a skill",  # it is the larger one that lacks it
        ),
    ],
)
def test_samples_must_cure_noise_and_no_more(changed, verdict, says):
    finding = claims.judge_cures(result(**changed))
    assert finding.verdict == verdict
    assert says in finding.why


def test_a_larger_model_is_compared_at_equal_cost():
    assert claims.larger_or_more(result()) == "At equal FLOPs a larger model asked less was as good in 8 of 10 cases."


def test_without_noise_its_cure_cannot_be_judged():
    with pytest.raises(ValueError, match="take other sizes or more steps"):
        claims.judge_cures(result(exact=(0,) * 6))
