"""Claims about errors, judged on results that are made up."""

import pytest

from refllm.lab.experiments import reliability_claims as claims
from refllm.lab.experiments.emergence import AVERAGED, means, shapes
from refllm.lab.verdict import FAILS, HOLDS, UNDECIDABLE

N = (1e3, 2e3, 4e3, 8e3, 16e3, 32e3)
LINE, STEP = (2.5, 2.05, 1.5, 1.0, 0.45, 0.01), (2.5, 2.5, 2.4, 2.5, 0.1, 0.1)
NOISE, SHARP = (0.1, 0.2, 0.3, 0.5, 0.7, 0.9), (0.0, 0.0, 0.0, 0.01, 1.0, 1.0)


def result(**changed):
    """A result of six sizes, a model each, whose facts are learned smoothly, and whose errors turn into noise; sums likewise.

    exact: of facts and sums    causes: A, B and C's shares of the errors, `errors` of all answers, of each size
    seed: of all models
    """
    how = {
        "loss": LINE,
        "sums": LINE,
        "exact": SHARP,
        "noise": NOISE,
        "missing": (0.0,) * 6,
        "errors": (0.8, 0.6, 0.4, 0.2, 0.05, 0.001),
        "off": 0.0,
        "error": 0.001,
        "cure": {"share": 1.0, "low": 0.95, "high": 1.05},
        "seed": 0,
    } | changed
    sizes, yields, inference = [], [], []
    for task, loss in (("facts", how["loss"]), ("addition", how["sums"])):
        for i, n in enumerate(N):
            about = {"task": task, "width": i, "parameters": int(n), "seed": how["seed"]}
            noise, missing = how["sums_noise" if task == "addition" and "sums_noise" in how else "noise"][i], how["missing"][i]
            row = {"exact_match": how["exact"][i], "nats_per_answer": loss[i], "causes": "A", "error_rate": how["errors"][i]}
            sizes.append(about | row | {"noise": noise, "missing": missing, "hard": how.get("hard", 1 - noise - missing)})
            p = how["exact"][i] ** 0.25
            for length in range(1, 5):
                off = how["off"] if 0 < p < 1 else 0
                errors = {"p^n error": how["error"], "product error": how["error"]}
                laws = {"measured": p**length + off, "p^n": p**length, "product": p**length}
                yields.append(about | {"length": length} | laws | errors)
            for k in (1, 64):
                drawn, greedy = 0.7 * how["exact"][i], how["exact"][i]
                majority = greedy if k > 1 else drawn
                inference.append(about | {"attempts": k, "greedy": greedy, "majority": majority, "total_flops": n * (1 + k / 40)})
    return judged({"sizes": sizes, "yields": yields, "inference": inference}, how["cure"])


def judged(tables, cure):
    """These tables as the experiment leaves them."""
    rows = [dict.fromkeys(AVERAGED, 0.0) | row for row in tables["sizes"]]
    numbers = {"shapes": shapes(rows), "cure": cure}
    return {"emergence": {"tables": tables | {"means": means(rows)}, "numbers": numbers}}


def together(*results):
    """Results of one seed each as one of them all."""
    tables = [found["emergence"]["tables"] for found in results]
    cure = results[0]["emergence"]["numbers"]["cure"]
    return judged({name: [row for one in tables for row in one[name]] for name in ("sizes", "yields", "inference")}, cure)


@pytest.mark.parametrize(
    ("off", "error", "verdict"),
    [
        (0.0, 0.001, HOLDS),
        (0.02, 0.001, HOLDS),
        (0.02, 0.02, UNDECIDABLE),
        (0.049, 0.001, UNDECIDABLE),
        (-0.09, 0.001, FAILS),
        (-0.09, 0.02, UNDECIDABLE),
    ],
)
def test_a_yield_is_held_against_the_power(off, error, verdict):
    finding = claims.judge_yield(result(off=off, error=error))
    assert finding.verdict == verdict
    assert finding.value == pytest.approx(abs(off))
    assert finding.low <= finding.value <= finding.high
    assert finding.high == pytest.approx(abs(off) + 3.078 * error, abs=error / 10)  # 24 at once: 99.9 % each


def test_the_largest_distance_of_a_yield_is_sought_among_all_seeds():
    finding = claims.judge_yield(together(result(), result(seed=1, off=0.02), result(seed=2)))
    assert finding.value == pytest.approx(0.02)
    assert finding.high == pytest.approx(0.02 + 3.391 * 0.001, abs=1e-6)  # 72 at once
    assert "seed 1:" in finding.why


def test_models_that_know_all_or_nothing_say_nothing_of_yields():
    with pytest.raises(ValueError, match="take other sizes"):
        claims.judge_yield(result(exact=(0, 0, 0, 0, 1, 1)))


@pytest.mark.parametrize(
    ("changed", "verdict"),
    [
        ({}, HOLDS),
        ({"sums": STEP}, FAILS),
        ({"loss": STEP}, FAILS),
        ({"sums": (2.5, 0.1, 2.5, 0.5, 2.2, 0.1)}, UNDECIDABLE),
        ({"exact": (0, 0, 0, 0, 0.1, 0.2)}, UNDECIDABLE),
        ({"exact": (0, 0.21, 0.4, 0.6, 0.79, 1.0)}, UNDECIDABLE),
    ],
)
def test_a_mirage_is_a_jump_of_the_score_alone(changed, verdict):
    finding = claims.judge_emergence(result(**changed))
    assert finding.verdict == verdict, finding
    assert ("no size masters it" in finding.why) == (max(changed.get("exact", (1,))) < 0.5)


def test_a_jump_is_told_with_its_chance_to_be_one():
    assert claims.judge_emergence(result()).value <= 0.05
    assert claims.judge_emergence(result(sums=STEP)).value > 0.05


JUMPS = [tuple(2.5 - 0.01 * (i % 2) if i < place else 0.01 * (i % 3) for i in range(6)) for place in (1, 3, 5)]


def test_a_loss_whose_seeds_jump_alone_is_no_mirage_though_their_mean_does_not_jump():
    finding = claims.judge_emergence(together(*(result(seed=seed, sums=loss) for seed, loss in enumerate(JUMPS))))
    assert "addition: loss a line" in finding.why
    assert "by itself the loss of 3 of 3 seeds a step" in finding.why
    assert "the loss of 0 of 3 seeds a step" in finding.why
    assert finding.verdict == UNDECIDABLE
    assert claims.judge_emergence(together(*(result(seed=seed) for seed in range(3)))).verdict == HOLDS


def test_one_unlucky_seed_of_three_does_not_make_the_others_masters_of_nothing():
    unlucky = result(seed=1, exact=(0.0,) * 6)
    assert "no size masters it" not in claims.judge_emergence(together(result(), unlucky, result(seed=2))).why
    assert "no size masters it" in claims.judge_emergence(together(unlucky, result(), result(seed=2, exact=(0.0,) * 6))).why


def test_four_sizes_do_not_show_a_shape():
    found = result()
    found["emergence"]["numbers"]["shapes"] = shapes(
        [row for row in found["emergence"]["tables"]["sizes"] if row["parameters"] < 16e3]
    )
    with pytest.raises(ValueError, match="fewer than five sizes"):
        claims.judge_emergence(found)


@pytest.mark.parametrize(
    ("changed", "verdict"),
    [
        ({}, HOLDS),
        ({"noise": NOISE[::-1]}, FAILS),
        ({"noise": (0.3, 0.1, 0.5, 0.2, 0.4, 0.3)}, UNDECIDABLE),
        ({"noise": tuple(0.5 * share for share in NOISE)}, UNDECIDABLE),  # it rises, and is not most of the errors
        ({"noise": (*NOISE[:5], 0.0), "hard": 0.0}, HOLDS),  # the largest does not err at all
    ],
)
def test_noise_must_be_what_scale_leaves(changed, verdict):
    finding = claims.judge_causes(result(**changed))
    assert finding.verdict == verdict


def test_the_rise_of_noise_is_the_lesser_of_both_tasks():
    assert claims.judge_causes(result()).value == pytest.approx(0.8)
    assert claims.judge_causes(result(sums_noise=(0.2, 0.3, 0.4, 0.5, 0.6, 0.7))).value == pytest.approx(0.5)
    assert claims.judge_causes(result(sums_noise=(0.0, 0.3, 0.4, 0.5, 0.6, 0.9))).value == pytest.approx(0.8)


def test_noise_is_traced_over_all_models_and_told_of_the_mean_over_seeds():
    scattered = (0.6, 0.1, 0.5, 0.2, 0.4, 0.7)
    assert claims.judge_causes(result(noise=scattered)).verdict == UNDECIDABLE
    both = claims.judge_causes(together(result(noise=scattered), result(seed=1), result(seed=2)))
    assert both.verdict == HOLDS
    assert both.value == pytest.approx((0.7 + 0.9 + 0.9) / 3 - (0.6 + 0.1 + 0.1) / 3)
    assert "facts A 0.27 to 0.83, B 0.73 to 0.17, C 0.00 to 0.00 (τ of A" in both.why
    assert "18 models" in both.why
    unlucky = result(seed=1, noise=(*NOISE[:5], 0.05))
    assert claims.judge_causes(together(result(), unlucky)).verdict == UNDECIDABLE  # 0.9 and 0.05: not most of the errors


def test_two_models_of_one_size_show_no_trend():
    one = {"noise": (0.5, 0, 0, 0, 0, 0), "hard": 0.0}
    with pytest.raises(ValueError, match="fewer than two sizes err in facts"):
        claims.judge_causes(together(result(**one), result(seed=1, **one)))


def test_models_that_do_not_err_have_no_causes():
    with pytest.raises(ValueError, match="fewer than two sizes err in facts"):
        claims.judge_causes(result(noise=(0.5, 0, 0, 0, 0, 0), hard=0.0))


SKILL, SKILL_FOR_GOOD = (0.8, 0.7, 0.5, 0.3, 0.2, 0.05), (0.1, 0.2, 0.3, 0.3, 0.2, 0.05)


@pytest.mark.parametrize(
    ("changed", "verdict", "says"),
    [
        ({"missing": SKILL}, FAILS, "facts C 0.640 to 0.000"),
        ({"missing": SKILL_FOR_GOOD, "errors": (0.8, 0.7, 0.6, 0.5, 0.4, 0.7)}, FAILS, "A and B 0.720 to 0.665"),
        ({"missing": (0.1, *SKILL[1:5], 0.3), "errors": (0.8, 0.7, 0.6, 0.5, 0.4, 0.7)}, FAILS, "A and B 0.720 to 0.490"),
        ({"missing": (0.5, *SKILL[1:5], 0.4), "errors": (0.8, 0.7, 0.6, 0.5, 0.4, 0.3)}, FAILS, "C 0.400 to 0.120"),
        ({}, UNDECIDABLE, "facts C 0.000 to 0.000"),  # no skill was missing
        ({"missing": (0.1, *SKILL[1:5], 0.9), "errors": (0.8, 0.7, 0.5, 0.4, 0.3, 0.2)}, HOLDS, "C 0.080 to 0.180"),
    ],
)
def test_training_must_cure_noise_and_hard_steps_and_no_more(changed, verdict, says):
    finding = claims.judge_cures(result(**changed))
    assert says in finding.why
    assert finding.verdict == verdict


@pytest.mark.parametrize(
    ("share", "reach", "verdict"), [(0.95, 0.1, HOLDS), (0.75, 0.1, UNDECIDABLE), (0.1, 0.1, FAILS), (2.0, 0.3, FAILS)]
)
def test_samples_must_cure_noise_and_no_more(share, reach, verdict):
    kept = {"missing": (0.1, *SKILL[1:5], 0.9), "errors": (0.8, 0.7, 0.5, 0.4, 0.3, 0.2)}
    finding = claims.judge_cures(result(cure={"share": share, "low": share - reach, "high": share + reach}, **kept))
    assert (finding.value, finding.low, finding.high) == (share, share - reach, share + reach)
    assert finding.verdict == verdict
    assert f"recovers {100 * share:.0f} %" in finding.why


def test_what_training_cures_is_told_of_the_mean_over_seeds():
    one, other = result(errors=(0.8, 0.6, 0.4, 0.2, 0.05, 0.0)), result(seed=1, errors=(0.8, 0.6, 0.4, 0.2, 0.05, 0.6))
    assert "facts A and B 0.800 to 0.300" in claims.judge_cures(together(one, other)).why
    assert "facts A and B 0.800 to 0.300" in claims.judge_cures(together(other, one)).why


def test_a_larger_model_is_compared_at_equal_cost_in_the_mean_over_seeds():
    lucky = result(seed=1, exact=(0.1, 0.0, 0.0, 0.0, 0.0, 0.0))
    assert claims.larger_or_more(together(result(), lucky)) == claims.larger_or_more(
        result(exact=(0.05, 0.0, 0.0, 0.005, 0.5, 0.5))
    )
    assert claims.larger_or_more(result()) == (
        "For the same FLOPs a larger model with fewer samples was as good in 8 of 10 cases."
    )


def test_without_noise_its_cure_cannot_be_judged():
    with pytest.raises(ValueError, match="take other sizes or more steps"):
        claims.judge_cures(result(cure=None))
