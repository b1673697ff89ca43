"""Three tasks, asked of models as completion."""

import copy

import numpy as np
import pytest

from refllm.array_api import generator
from refllm.checkpoints import save
from refllm.lab import completion, questions
from refllm.lab.experiment import conduct
from refllm.lab.questions import TASKS

TINY = completion.Settings(questions=12, width=8, steps=4, batch=2, context=40)


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    return conduct(completion, TINY, tmp_path_factory.mktemp("lab"), report=lambda line: None)


@pytest.mark.parametrize("name", list(TASKS))
def test_no_question_is_among_the_lines_to_learn_from(name):
    rng = np.random.default_rng(0)
    asked = questions.drawn(name, rng, 60, held_out=True)
    told = questions.drawn(name, rng, 400, held_out=False)
    words = TASKS[name][2]
    combined = [{tuple(fields[word] for word in words) for fields in part} for part in (asked, told)]
    assert not combined[0] & combined[1]
    assert len(combined[0]) > 10


@pytest.mark.parametrize("name", list(TASKS))
def test_every_question_has_its_answer_among_different_choices(name):
    task = completion.task_of(name, TINY)
    for fields in task.questions:
        choices = task.choices_of(fields)
        assert fields["answer"] in choices
        assert len(set(choices)) == len(choices) == (2 if name == "classification" else 4)
    assert len({task.choices_of(fields).index(fields["answer"]) for fields in task.questions}) > 1


def test_answers_are_right():
    rng = np.random.default_rng(1)
    for fields in questions.drawn("classification", rng, 20, held_out=False):
        assert {fields["first"], fields["second"]} <= set(questions.GOOD if fields["answer"] == "good" else questions.BAD)
    for fields in questions.drawn("translation", rng, 20, held_out=False):
        assert fields["answer"] == f"la {questions.NOUNS[fields['noun']]} {questions.COLORS[fields['color']]}"
    for fields in questions.drawn("answering", rng, 20, held_out=False):
        assert fields["answer"] == questions.CAPITALS[fields["country"]]


def test_lines_are_solved_questions_as_the_tasks_put_them():
    text = questions.lines(np.random.default_rng(0), 30)
    assert text.count("\n") == 30
    fields = {"thing": "film", "first": "dull", "second": "slow", "answer": "bad"}
    line = questions.solved("classification", fields)
    assert line == "the film was dull and slow . mood : bad\n"
    task = questions.task("classification", [fields], [fields])
    assert task.prompt(fields) == line + line.removesuffix(" bad\n")


def test_rows_begin_whole_lines_behind_the_token_of_a_text():
    text = questions.lines(np.random.default_rng(0), 50)
    tokenizer = completion.tokenizer_of(text)
    rows = completion.line_rows(tokenizer, text, 30)
    starts = {line[:8] for line in text.splitlines()}
    assert rows.shape[1] == 31
    for row in rows.tolist():
        assert row[0] == tokenizer.eos
        assert tokenizer.decode(row[1:])[:8] in starts


def test_solved_questions_are_shown_where_asked_for():
    task = completion.task_of("answering", completion.Settings(questions=2, shots=3))
    assert task.prompt(task.questions[0]).count("capital") == 4


def test_both_models_answer_all_tasks(result):
    rows = result["tables"]["tasks"]
    assert [(row["model"], row["task"]) for row in rows] == [(m, t) for m in ("trained", "untrained") for t in TASKS]
    for row in rows:
        assert row["questions"] == 12
        assert row["low"] <= row["accuracy"] <= row["high"]
        assert row["chance"] == (0.5 if row["task"] == "classification" else 0.25)
        assert row["by_sum"] == row["accuracy"]


def test_a_checkpoint_of_the_users_is_asked_in_place_of_the_small_one(tmp_path):
    text = questions.lines(generator(0, "lines"), 50)
    tokenizer = completion.tokenizer_of(text)
    config = completion.config_of(8, tokenizer.vocab_size, 64)
    model = completion.Model.initialise("llama", config, 0, tokenizer=tokenizer)
    save(tmp_path / "mine", model)
    settings = completion.Settings(checkpoint=str(tmp_path / "mine"), questions=4)
    rows = conduct(completion, settings, tmp_path / "lab", report=lambda line: None)["tables"]["tasks"]
    assert [row["model"] for row in rows] == ["checkpoint"] * 3


@pytest.mark.parametrize(
    ("change", "verdict"),
    [
        ({}, "holds"),
        ({"accuracy": 0.3, "low": 0.2, "high": 0.4}, "undecidable at this scale"),
        ({"accuracy": 0.1, "low": 0.0, "high": 0.25}, "fails"),
    ],
)
def test_the_claim_is_judged_by_the_worst_task_of_the_model_that_learned(result, change, verdict):
    found = copy.deepcopy(result)
    for row in found["tables"]["tasks"]:
        row |= {"accuracy": 0.9, "low": 0.8, "high": 1.0} if row["model"] == "trained" else {"low": 0.0, "high": 0.1}
    found["tables"]["tasks"][1] |= change
    finding = completion.CLAIMS[0].judge({"completion": found})
    assert finding.verdict == verdict
    assert not change or (finding.value, finding.unit) == (change["accuracy"], "share right, translation")
