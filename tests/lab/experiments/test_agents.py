"""Errors of steps, and of tasks of many."""

import numpy as np
import pytest

from refllm.lab.experiment import conduct
from refllm.lab.experiments import agents
from refllm.lab.materials import calculator
from refllm.lab.materials.tool_loop import Run
from refllm.lab.verdict import FAILS, HOLDS, UNDECIDABLE

TINY = agents.Settings(steps=2, items=20, tries=2, width=8, updates=(12, 10), batch=4)
ORDER = ("alone", "retry", "check", "start again")


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    return conduct(agents, TINY, tmp_path_factory.mktemp("lab"), report=lambda line: None)


def test_every_help_is_measured_at_every_step_of_every_model(result):
    rows, ends = result["tables"]["steps"], result["tables"]["ends"]
    wanted = [(updates, help, n) for updates in (10, 12) for help in ORDER for n in (1, 2)]
    assert [(row["updates"], row["help"], row["steps"]) for row in rows] == wanted
    assert [(row["updates"], row["help"]) for row in ends] == [(updates, help) for updates in (10, 12) for help in ORDER]
    for row in rows:
        assert row["low"] <= row["success"] <= row["high"]
        assert row["power"] == pytest.approx(row["step_success"] ** row["steps"])
        assert ("predicted" in row) == (row["help"] != "retry")
    for row in ends:
        assert row["steps"] == 2
        assert row["calls_a_step"] == 1 if row["help"] == "alone" else 1 <= row["calls_a_step"] <= 2
    assert result["numbers"] == {"steps": 2}


def test_models_that_learned_for_longer_err_less(result):
    p = [row["step_success"] for row in result["tables"]["ends"] if row["help"] == "alone"]
    assert 0 < p[0] < p[1] < 1e-3  # all five tokens of a call must be right


def test_success_is_counted_after_each_step():
    right = np.array([[1, 1], [1, 0], [1, 0], [0, 0]], dtype=bool)
    rows = agents.by_step(Run(right, 8), np.array([0.7, 0.3]), 0.5)
    assert [(row["steps"], row["success"], row["predicted"], row["power"]) for row in rows] == [
        (1, 0.75, 0.7, 0.5),
        (2, 0.25, 0.3, 0.25),
    ]


class Lucky:
    """A writer that is right with even chance, by random numbers of its own."""

    seeds: list[int] = []

    def __init__(self, model, prompts, seed):
        self.rng, self.step = np.random.default_rng(seed), 0
        self.operations, self.values = calculator.operations_of(prompts), calculator.value_of(prompts)
        self.seeds.append(seed)

    def propose(self):
        calls = calculator.expected_call(self.values, self.operations, self.step)
        return np.where(self.rng.random((len(calls), 1)) < 0.5, calls, calculator.START)

    def go_on(self, calls, results):
        self.values, self.step = calculator.value_of(results), self.step + 1


def test_loops_draw_calls_of_their_own_and_try_as_often_as_allowed(monkeypatch):
    monkeypatch.setattr(agents, "ModelWriter", Lucky)
    prompts = calculator.task(2).items(4000).tokens[:, : calculator.prompt_length(2)]
    runs = agents.helped(None, prompts, agents.Settings(steps=2, tries=3))
    assert list(runs) == list(ORDER)
    assert len(set(Lucky.seeds)) == len(Lucky.seeds) == 5
    shares = {help: run.right[:, -1].mean() for help, run in runs.items()}
    again = 1 - (1 - 0.25) ** 3
    assert shares == pytest.approx({"alone": 0.25, "retry": 0.875**2, "check": 0.875**2, "start again": again}, abs=0.035)


def ends(*models):
    """The last rows of models by (chance of a step, success, product of the steps), each interval ± .02."""
    rows = []
    for i, (p, success, product) in enumerate(models):
        alone = {"success": success, "low": success - 0.02, "high": success + 0.02, "predicted": product}
        others = [{"help": help, "success": 0.97 - 0.1 * i} for help in ORDER[1:]]
        rows += [{"updates": i, "step_success": p} | row for row in ({"help": "alone"} | alone, *others)]
    return {"agents": {"tables": {"ends": rows}, "numbers": {"steps": 12}}}


@pytest.mark.parametrize(
    ("models", "verdict"),
    [
        ([(0.9, 0.3, 0.28), (0.99, 0.89, 0.886)], HOLDS),
        ([(0.9, 0.3, 0.28), (0.999, 0.988, 0.988)], HOLDS),  # too few errors to compound in the second
        ([(0.6, 0.02, 0.001), (0.9, 0.3, 0.28), (0.99, 0.89, 0.886)], HOLDS),
        ([(0.999, 0.988, 0.988)], UNDECIDABLE),
        ([(0.9, 0.3, 0.28), (0.99, 0.85, 0.886)], UNDECIDABLE),
        ([(0.9, 0.3, 0.28), (0.99, 0.80, 0.886)], FAILS),
        ([(0.9, 0.4, 0.28), (0.99, 0.89, 0.886)], FAILS),
        ([(0.9, 0.92, 0.88)], FAILS),
    ],
)
def test_success_must_follow_the_product_at_every_reliability(models, verdict):
    finding = agents.CLAIMS[0].judge(ends(*models))
    assert finding.verdict == verdict
    shown = min(models, key=lambda model: abs(model[1] - 0.5))
    assert finding.value == shown[1]
    helped = 97 - 10 * models.index(shown)
    assert f"with retry {helped} %, check {helped} %, start again {helped} %" in finding.why
    assert finding.unit == f"success after 12 steps at p = {shown[0]:.3f}"
    assert all(f"{p:.3f} → {success:.3f} ({product:.3f})" in finding.why for p, success, product in models)


@pytest.mark.parametrize(
    ("setting", "says"), [({"steps": 1}, "steps=1 must be at least 2"), ({"updates": ()}, "updates"), ({"width": 1}, "width=1")]
)
def test_settings_that_leave_nothing_to_measure_are_refused(setting, says):
    with pytest.raises(ValueError, match=says):
        agents.Settings(**setting)
