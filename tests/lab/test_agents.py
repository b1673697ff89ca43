"""Tasks of several steps, their tool, and loops with and without help."""

import copy

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.lab import agents, calculator
from refllm.lab.calculator import MINUS, PLUS, START
from refllm.lab.experiment import conduct
from refllm.models import architecture
from refllm.models.model import Model


class Scripted:
    """A writer whose calls are right but where `wrong(step, attempt)` says what to write instead: (5,) or None."""

    def __init__(self, prompts, wrong):
        self.operations, self.values = calculator.operations_of(prompts), calculator.value_of(prompts)
        self.wrong, self.step, self.attempt, self.read = wrong, 0, 0, []

    def propose(self):
        calls = calculator.expected_call(self.values, self.operations, self.step)
        written = [self.wrong(row, self.step, self.attempt) for row in range(len(calls))]
        self.attempt += 1
        return np.stack([call if w is None else np.array(w) for call, w in zip(calls, written, strict=True)])

    def go_on(self, calls, results):
        self.read.append((calls, results))
        self.values, self.step, self.attempt = calculator.value_of(results), self.step + 1, 0


def prompts(rows=4, steps=5):
    return calculator.task(steps).items(rows).tokens[:, : calculator.prompt_length(steps)]


def loop(help, wrong, tries=3, rows=4):
    found = prompts(rows)
    return agents.loop(Scripted(found, wrong), found, agents.HELPS[help], tries)


def never(row, step, attempt):
    return None


def at_first(row, step, attempt):
    return [START] * 5 if (row, step, attempt) == (1, 2, 0) else None


def off_by_one(row, step, attempt):
    return [0, 0, PLUS, 0, 0] if (row, step, attempt) == (1, 2, 0) else None


@given(st.integers(0, 99), st.booleans(), st.integers(0, 99))
def test_the_tool_adds_and_subtracts_modulo_100(a, plus, b):
    call = np.array([[a // 10, a % 10, PLUS if plus else MINUS, b // 10, b % 10]])
    assert calculator.calculate(call) == (np.array([(a + b if plus else a - b) % 100]), np.array([True]))


@pytest.mark.parametrize("place", range(5))
def test_the_tool_knows_no_call_with_a_wrong_token(place):
    call = np.array([[1, 2, PLUS, 3, 4]])
    call[0, place] = START if place != 2 else 7
    assert calculator.calculate(call) == (np.array([0]), np.array([False]))


def test_a_transcript_shows_the_task_and_every_call_with_its_result():
    items = calculator.task(2).items(50)
    for row in items.tokens.tolist():
        a, first, second = 10 * row[0] + row[1], row[2:5], row[5:8]
        assert row[8] == START
        assert row[9:14] == [*row[:2], *first]
        b = (a + (1 if first[0] == PLUS else -1) * (10 * first[1] + first[2])) % 100
        assert row[14:21] == [b // 10, b % 10, b // 10, b % 10, *second]
        c = (b + (1 if second[0] == PLUS else -1) * (10 * second[1] + second[2])) % 100
        assert row[21:] == [c // 10, c % 10]
    assert calculator.task(2).answers == (9, 10, 11, 12, 13, 16, 17, 18, 19, 20)
    assert {row[2] for row in items.tokens.tolist()} == {PLUS, MINUS}


def test_without_errors_every_step_is_right_and_called_once():
    found = loop(agents.CHECK, never)
    assert found.right.all()
    assert found.calls == 4 * 5


@pytest.mark.parametrize(
    ("help", "wrong", "lost", "more"),
    [
        (agents.ALONE, at_first, True, 0),
        (agents.RETRY, at_first, False, 1),
        (agents.CHECK, at_first, False, 1),
        (agents.ALONE, off_by_one, True, 0),
        (agents.RETRY, off_by_one, True, 0),
        (agents.CHECK, off_by_one, False, 1),
    ],
)
def test_a_retry_cures_what_the_tool_rejects_and_a_check_what_the_task_did_not_ask(help, wrong, lost, more):
    found = loop(help, wrong)
    assert found.right[1].tolist() == [True, True] + [not lost] * 3
    assert found.right[[0, 2, 3]].all()
    assert found.calls == 4 * 5 + more


def test_a_check_gives_up_after_its_tries():
    def stubborn(row, step, attempt):
        return [0, 0, PLUS, 0, 0] if (row, step) == (1, 2) else None

    found = loop(agents.CHECK, stubborn, tries=3)
    assert not found.right[1, 2:].any()
    assert found.calls == 4 * 5 + 2


def test_a_right_call_stands_while_another_task_tries_again():
    def wrong(row, step, attempt):
        return [0, 0, PLUS, 0, 0] if step == 0 and attempt == (0 if row == 0 else 1) else None

    assert loop(agents.CHECK, wrong, tries=2).right.all()


def test_the_writer_reads_what_was_called_and_answered():
    found = prompts()
    writer = Scripted(found, never)
    agents.loop(writer, found, agents.HELPS[agents.ALONE], 1)
    assert len(writer.read) == 4  # nobody reads the last result
    transcript = np.concatenate([found, *(part for pair in writer.read for part in pair)], axis=1)
    np.testing.assert_array_equal(transcript, calculator.task(5).items(4).tokens[:, : transcript.shape[1]])


def test_starting_again_keeps_the_runs_that_end_right():
    a, b = (np.array(rows, dtype=bool) for rows in ([[1, 1], [1, 0], [0, 0]], [[0, 0], [0, 1], [0, 0]]))
    found = agents.start_again([agents.Run(a, 6), agents.Run(b, 6)])
    assert found.right.tolist() == [[True, True], [True, True], [False, False]]
    assert found.calls == 6 + 2 * 2


def test_predictions_are_products():
    q = np.array([[0.5, 0.8], [1.0, 0.9]])
    found = agents.predictions(q, 2)
    assert found[agents.ALONE] == pytest.approx([0.75, (0.4 + 0.9) / 2])
    assert found[agents.CHECK] == pytest.approx([(0.75 + 1) / 2, (0.75 * 0.96 + 0.99) / 2])
    assert found[agents.AGAIN] == pytest.approx([(0.75 + 1) / 2, (1 - 0.36 + 1 - 0.01) / 2])


def test_a_model_writes_calls_by_its_own_probabilities_however_often_it_is_asked():
    config = architecture("gpt2").Config(13, 8, 1, 2, 40, 16)
    model, found = Model.initialise("gpt2", config, 0, "numpy"), prompts(3, 2)
    model = Model(model.architecture, config, {name: 8 * p if p.ndim == 2 else p for name, p in model.params.items()})
    one, two = agents.ModelWriter(model, found, 0), agents.ModelWriter(model, found, 0)
    first = one.propose()
    np.testing.assert_array_equal(first, two.propose())
    assert (one.propose() != first).any()
    results = calculator.two_digits(np.array([1, 22, 93]))
    one.go_on(first, results)
    read = np.concatenate([found, first, results], axis=1).astype(np.int32)
    np.testing.assert_allclose(one._logits, model.logits(read)[:, -1], atol=1e-5)


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    settings = agents.Settings(steps=2, items=20, tries=2, width=8, updates=10, batch=4)
    return conduct(agents, settings, tmp_path_factory.mktemp("lab"), report=lambda line: None)


def test_every_help_is_measured_at_every_step(result):
    rows = result["tables"]["steps"]
    assert [(row["help"], row["steps"]) for row in rows] == [
        (help, n) for help in ("alone", "retry", "check", "start again") for n in (1, 2)
    ]
    for row in rows:
        assert row["low"] <= row["success"] <= row["high"]
        assert row["power"] == pytest.approx(result["numbers"]["step_success"] ** row["steps"])
    ends = {row["help"]: row for row in result["tables"]["ends"]}
    assert ends["alone"]["calls_a_step"] == 1
    assert 1 <= ends["check"]["calls_a_step"] <= 2


@pytest.mark.parametrize(
    ("success", "predicted", "verdict"),
    [(0.5, 0.52, "holds"), (0.5, 0.7, "undecidable at this scale"), (0.88, 0.88, "undecidable at this scale"), (1.0, 1, "fails")],
)
def test_the_claim_is_judged_by_the_model_alone(result, success, predicted, verdict):
    found = copy.deepcopy(result)
    found["numbers"]["step_success"] = 0.9
    found["tables"]["ends"][0] |= {"success": success, "low": success - 0.05, "high": success + 0.05, "predicted": predicted}
    assert agents.CLAIMS[0].judge({"agents": found}).verdict == verdict
