"""Loops with and without help."""

import numpy as np
import pytest

from refllm.array_api import generator
from refllm.lab.materials import calculator, tool_loop
from refllm.lab.materials.calculator import PLUS, START
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
    return tool_loop.loop(Scripted(found, wrong), found, tool_loop.HELPS[help], tries)


def never(row, step, attempt):
    return None


def at_first(row, step, attempt):
    return [START] * 5 if (row, step, attempt) == (1, 2, 0) else None


def off_by_one(row, step, attempt):
    return [0, 0, PLUS, 0, 0] if (row, step, attempt) == (1, 2, 0) else None


def test_without_errors_every_step_is_right_and_called_once():
    found = loop(tool_loop.CHECK, never)
    assert found.right.all()
    assert found.calls == 4 * 5


@pytest.mark.parametrize(
    ("help", "wrong", "lost", "more"),
    [
        (tool_loop.ALONE, at_first, True, 0),
        (tool_loop.RETRY, at_first, False, 1),
        (tool_loop.CHECK, at_first, False, 1),
        (tool_loop.ALONE, off_by_one, True, 0),
        (tool_loop.RETRY, off_by_one, True, 0),
        (tool_loop.CHECK, off_by_one, False, 1),
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

    found = loop(tool_loop.CHECK, stubborn, tries=3)
    assert not found.right[1, 2:].any()
    assert found.calls == 4 * 5 + 2


def test_a_right_call_stands_while_another_task_tries_again():
    def wrong(row, step, attempt):
        return [0, 0, PLUS, 0, 0] if step == 0 and attempt == (0 if row == 0 else 1) else None

    assert loop(tool_loop.CHECK, wrong, tries=2).right.all()


def test_the_writer_reads_what_was_called_and_answered():
    found = prompts()
    writer = Scripted(found, never)
    tool_loop.loop(writer, found, tool_loop.HELPS[tool_loop.ALONE], 1)
    assert len(writer.read) == 4  # nobody reads the last result
    transcript = np.concatenate([found, *(part for pair in writer.read for part in pair)], axis=1)
    np.testing.assert_array_equal(transcript, calculator.task(5).items(4).tokens[:, : transcript.shape[1]])
    other = Scripted(found, off_by_one)
    tool_loop.loop(other, found, tool_loop.HELPS[tool_loop.ALONE], 1)
    calls, results = other.read[2]
    assert (calls[1].tolist(), results[1].tolist()) == ([0, 0, PLUS, 0, 0], [0, 0])  # wrong ones too


def test_starting_again_keeps_the_runs_that_end_right():
    ends = ([[1, 1], [1, 0], [0, 0]], [[0, 0], [0, 1], [0, 0]], [[0, 0], [1, 0], [1, 0]])
    runs = [tool_loop.Run(np.array(rows, dtype=bool), 6) for rows in ends]
    found = tool_loop.start_again(runs)
    assert found.right.tolist() == [[True, True], [True, True], [True, False]]
    assert found.calls == 2 * (3 + 2 + 1)


def test_predictions_are_products():
    q = np.array([[0.5, 0.8], [1.0, 0.9]])
    found = tool_loop.predictions(q, 2)
    assert found[tool_loop.ALONE] == pytest.approx([0.75, (0.4 + 0.9) / 2])
    assert found[tool_loop.CHECK] == pytest.approx([(0.75 + 1) / 2, (0.75 * 0.96 + 0.99) / 2])
    assert found[tool_loop.AGAIN] == pytest.approx([(0.75 + 1) / 2, (1 - 0.36 + 1 - 0.01) / 2])


def test_a_model_writes_calls_by_its_own_probabilities_however_often_it_is_asked():
    config = architecture("gpt2").Config(13, 8, 1, 2, 40, 16)
    model, found = Model.initialise("gpt2", config, 0, "numpy"), prompts(3, 2)
    model = Model(model.architecture, config, {name: 8 * p if p.ndim == 2 else p for name, p in model.params.items()})
    one, two = tool_loop.ModelWriter(model, found, 5), tool_loop.ModelWriter(model, found, 5)
    first = one.propose()
    draws, read = generator(5, "agent"), found.astype(np.int32)
    for _ in range(5):
        logits = np.asarray(model.logits(read)[:, -1], dtype=float)
        p = np.exp(logits - logits.max(axis=1, keepdims=True))
        below = np.cumsum(p / p.sum(axis=1, keepdims=True), axis=1) <= draws.random(3)[:, None]
        read = np.concatenate([read, below.sum(axis=1, keepdims=True).astype(np.int32)], axis=1)
    np.testing.assert_array_equal(first, read[:, found.shape[1] :])
    np.testing.assert_array_equal(first, two.propose())
    assert (one.propose() != first).any()
    results = calculator.two_digits(np.array([1, 22, 93]))
    one.go_on(first, results)
    read = np.concatenate([found, first, results], axis=1).astype(np.int32)
    np.testing.assert_allclose(one._logits, model.logits(read)[:, -1], atol=1e-5)
