"""Tasks asked of models as completion."""

import copy

import numpy as np
import pytest

from refllm.checkpoints import save
from refllm.lab.experiment import conduct
from refllm.lab.experiments import completion
from refllm.lab.materials import questions
from refllm.lab.materials.questions import TASKS
from refllm.lab.verdict import FAILS, HOLDS, UNDECIDABLE
from refllm.models.model import Model

TINY = completion.Settings(questions=12, width=8, steps=4, batch=2)


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    return conduct(completion, TINY, tmp_path_factory.mktemp("lab"), report=lambda line: None)


@pytest.fixture(scope="module")
def tokenizer():
    return completion.tokenizer_of(0)


def test_every_word_is_one_token(tokenizer):
    words = [word for line in questions.lines(np.random.default_rng(5), 300) for part in line for word in "".join(part).split()]
    assert all(len(tokenizer.encode(f" {word}")) == 1 for word in words)


def test_only_answers_are_learned_and_what_follows_a_line_is_not(tokenizer):
    lines = questions.lines(np.random.default_rng(0), 12)
    tokens, targets = completion.batch(tokenizer, lines)
    assert tokens.shape == targets.shape == (12, max(len(tokenizer.encode("".join(map("".join, line)))) for line in lines))
    assert tokens.dtype == targets.dtype == np.int32
    for line, read, told in zip(lines, tokens.tolist(), targets.tolist(), strict=True):
        whole = [tokenizer.eos, *tokenizer.encode("".join(map("".join, line)))]
        length = len(whole) - 1
        assert read[:length] == whole[:-1]
        answers = [id for _, answer in line for id in tokenizer.encode(answer)]
        assert [id for id in told if id != -100] == answers
        assert all(id in (-100, after) for id, after in zip(told, whole[1:], strict=False))
        assert set(told[length:]) <= {-100}


def test_the_longest_line_fits_the_context(tokenizer):
    lines = questions.lines(np.random.default_rng(0), 200)
    assert completion.batch(tokenizer, lines)[0].shape[1] <= completion.CONTEXT


def test_solved_questions_are_shown_where_asked_for():
    task = completion.task_of("recall", completion.Settings(questions=2, shots=3))
    assert task.prompt(task.questions[0]).count("capital") == 4
    shown = [(e["person"], e["country"]) for e in task.examples]
    assert not any(questions.is_held_out(*words) for words in shown)
    assert all(questions.is_held_out(q["person"], q["country"]) for q in task.questions)


def test_both_models_answer_all_tasks(result):
    rows = result["tables"]["tasks"]
    assert [(row["model"], row["task"]) for row in rows] == [(m, t) for m in ("trained", "untrained") for t in TASKS]
    for row in rows:
        assert row["questions"] == 12
        assert row["low"] <= row["accuracy"] <= row["high"]
        assert row["chance"] == (0.5 if row["task"] == "classification" else 0.25)
        assert row["by_sum"] == row["accuracy"]


def test_the_untrained_model_is_the_trained_one_before_its_first_update():
    settings = completion.Settings(width=8, steps=1, batch=2)
    before, after = (completion.small_model(settings, learns=learns).params for learns in (False, True))
    rate = completion.training_of(completion.Recipe(8, steps=1, batch=2), completion.CONTEXT).learning_rate
    for name, values in before.items():
        assert np.abs(after[name] - values).max() <= 1.01 * rate  # one step of Adam


def test_a_model_learns_which_mood_words_are_of(monkeypatch):
    monkeypatch.setattr(questions, "LEARNED", {"classification": 1})
    monkeypatch.setattr(completion, "TASKS", ["classification"])
    settings = completion.Settings(questions=40, width=16, steps=60, batch=16)
    shares = {name: completion.judged((name, settings))["rows"][0]["accuracy"] for name in ("trained", "untrained")}
    assert shares["trained"] > 0.9 > 0.7 > shares["untrained"]


def test_a_checkpoint_of_the_users_is_asked_in_place_of_the_small_one(tmp_path):
    save(tmp_path / "mine", completion.small_model(TINY, learns=False))
    settings = completion.Settings(checkpoint=str(tmp_path / "mine"), questions=4)
    rows = conduct(completion, settings, tmp_path / "lab", report=lambda line: None)["tables"]["tasks"]
    assert [row["model"] for row in rows] == ["checkpoint"] * 4


def test_a_checkpoint_without_a_tokenizer_needs_one_by_name(tmp_path, tokenizer):
    config = completion.config_of(8, tokenizer.vocab_size, 64)
    save(tmp_path / "mine", Model.initialise("llama", config, 0))
    tokenizer.save(tmp_path / "tokenizer.json")
    settings = completion.Settings(checkpoint=str(tmp_path / "mine"), tokenizer=str(tmp_path / "tokenizer.json"))
    assert completion.user_model(settings).tokenizer.encode("the film") == tokenizer.encode("the film")
    with pytest.raises(ValueError, match="brings no tokenizer; name one with --set tokenizer=FILE"):
        completion.user_model(completion.Settings(checkpoint=str(tmp_path / "mine")))


@pytest.mark.parametrize(
    ("change", "verdict"),
    [
        ({}, HOLDS),
        ({"accuracy": 0.3, "low": 0.2, "high": 0.4}, UNDECIDABLE),
        ({"accuracy": 0.1, "low": 0.0, "high": 0.25}, FAILS),
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


@pytest.mark.parametrize(("of_two", "worst"), [(0.75, "classification"), (0.9, "translation")])
def test_the_worst_task_has_come_the_least_part_of_the_way_from_chance(result, of_two, worst):
    found = copy.deepcopy(result)
    for row in found["tables"]["tasks"]:
        row |= {"accuracy": of_two if row["task"] == "classification" else 0.7, "low": 0.6, "high": 0.95}
    assert completion.CLAIMS[0].judge({"completion": found}).unit == f"share right, {worst}"


@pytest.mark.parametrize(
    ("setting", "says"), [({"questions": 0}, "questions=0"), ({"shots": -1}, "shots=-1"), ({"tokenizer": "x"}, "name that too")]
)
def test_settings_that_cannot_be_are_refused(setting, says):
    with pytest.raises(ValueError, match=says):
        completion.Settings(**setting)
