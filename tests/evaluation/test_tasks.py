"""Tasks as completion: prompts, scores of choices, written answers, and the file that describes a task."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest

from refllm.conformance.specification import definitions, spec_folder
from refllm.decoding import Sampler, continue_text
from refllm.evaluation.likelihood import continuation_log_likelihood
from refllm.evaluation.metrics import wilson
from refllm.evaluation.tasks import Task, complete, filled, read, run
from refllm.tokenizer import train_bpe

EXACT = 1e-12
PAGE = (spec_folder() / "evaluation" / "tasks.md").read_text(encoding="utf-8")
FILES = re.findall(r"^```toml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
CHOICES = Task(
    name="animals",
    template="the {animal} sat on the",
    answer="thing",
    choices=("mat", "tree", "dog"),
    questions=({"animal": "cat", "thing": "mat"}, {"animal": "dog", "thing": "tree"}, {"animal": "mat", "thing": "dog"}),
    examples=({"animal": "tree", "thing": "tree"}, {"animal": "dog", "thing": "mat"}),
    description="sat:\n",
    between="\n",
)
WRITTEN = replace(CHOICES, metric="exact_match", choices=(), max_tokens=8, stop=("\n", "tree"))


@pytest.fixture
def write_task(tmp_path):
    """A function that writes a task's file and reads it."""

    def written(text):
        path = tmp_path / "task.toml"
        path.write_text(text, encoding="utf-8")
        return read(path)

    return written


@pytest.fixture(scope="module")
def chain(bigram):
    """A model that surely writes the next word of a ring of words, and ends every answer with a newline after three."""
    tokenizer = train_bpe("the cat sat on the mat\n" * 20, 290)

    def make(text):
        V = tokenizer.vocab_size
        probabilities = np.full((V, V), 0.01 / (V - 1))
        ids = tokenizer.encode(text)
        for before, after in zip(ids, [*ids[1:], ids[0]], strict=True):
            probabilities[before, after] = 0.99
        return bigram(probabilities / probabilities.sum(axis=1, keepdims=True), tokenizer, max_positions=400)

    return make


# Prompts


def test_a_prompt_is_the_description_the_solved_examples_and_the_question():
    prompt = "sat:\nthe tree sat on the tree\nthe dog sat on the mat\nthe cat sat on the"
    assert CHOICES.prompt(CHOICES.questions[0]) == prompt
    one = replace(CHOICES, shots=1)
    assert one.prompt(one.questions[1]) == "sat:\nthe tree sat on the tree\nthe dog sat on the"
    assert replace(CHOICES, shots=0, neutral={"animal": ""}).neutral_prompt() == "sat:\nthe  sat on the"
    assert replace(CHOICES, shots=0).neutral_prompt() == "sat:\nthe N/A sat on the"
    assert definitions()["few_shot"]("sat:\n", ["a b", "c"], ["x", "y"], " ", "\n", "d") == "sat:\na b x\nc y\nd"


def test_fields_are_put_in_as_they_are_and_braces_are_doubled():
    assert filled("{{{a}}} {b}{a}", {"a": "{b}", "b": 7}) == "{{b}} 7{b}"
    with pytest.raises(ValueError, match="the field 'c', which the template names, is missing"):
        filled("{c}", {"a": 1})


# Choices


@pytest.mark.parametrize("score", ["sum", "token", "byte", "calibrated"])
@pytest.mark.parametrize("batch", [1, 5])
def test_each_choice_is_scored_by_the_likelihood_of_its_text(make_model, tokenizer, score, batch):
    model = make_model("numpy", "float64", max_positions=90, tokenizer=tokenizer)
    task = replace(CHOICES, score=score)
    result = run(model, task, batch=batch)
    right = 0
    for fields, answer in zip(task.questions, result.answers, strict=True):
        likelihoods = [continuation_log_likelihood(model, task.prompt(fields), f" {c}") for c in task.choices]
        neutral = [continuation_log_likelihood(model, task.neutral_prompt(), f" {c}").total for c in task.choices]
        totals, tokens = [x.total for x in likelihoods], [len(x.tokens) for x in likelihoods]
        n_bytes = [len(c) for c in task.choices]
        for name, given in {"sum": None, "token": tokens, "byte": n_bytes, "calibrated": neutral}.items():
            expected = definitions()["choice_scores"](totals, name, given)
            assert np.all(np.abs(np.subtract(answer.nats[name], expected)) <= EXACT * max(map(abs, totals)))
        assert answer.answer == task.choices[int(np.argmax(answer.nats[score]))]
        assert answer.score == (answer.answer == fields["thing"])
        right += answer.answer == fields["thing"]
    assert result.share == result.by_score[score] == wilson(right, 3)


def test_calibration_takes_off_what_makes_a_choice_likely_anyway(make_model, tokenizer):
    """With the question itself as neutral prompt nothing is left of it."""
    model = make_model("numpy", "float64", max_positions=90, tokenizer=tokenizer)
    task = replace(CHOICES, neutral={"animal": "cat"}, questions=CHOICES.questions[:1])
    assert np.all(np.abs(run(model, task).answers[0].nats["calibrated"]) <= 1e-10)


def test_a_question_may_bring_its_own_choices_and_several_right_answers(make_model, tokenizer):
    questions = (
        {"animal": "cat", "thing": ["mat", "tree"], "from": ["mat", "tree"]},
        {"animal": "dog", "thing": "dog", "from": ["cat", "mat", "dog"]},
    )
    task = replace(CHOICES, choices="from", questions=questions)
    result = run(make_model(max_positions=90, tokenizer=tokenizer), task)
    assert [len(answer.nats["sum"]) for answer in result.answers] == [2, 3]
    assert result.answers[0].score == 1


# Written answers


def test_a_written_answer_is_greedy_text_up_to_the_first_stop_string(chain):
    model = chain(" the cat sat on a mat\n")
    assert complete(model, [" the cat"], 30, ["\n"]) == [" sat on a mat"]
    assert complete(model, [" the cat"], 30, ["a m", " on"]) == [" sat"]
    assert complete(model, [" the cat"], 30, ["n", " on", "on"]) == [" sat"]
    assert complete(chain(" the cat ü on\n"), [" the"], 30, ["\n"]) == [" cat ü on"]  # a character of two tokens
    assert complete(model, [" the cat", " the"], 2, []) == [
        "".join(p.text for p in continue_text(model, prompt, 2, Sampler(0.0), 0)) for prompt in (" the cat", " the")
    ]


def test_prompts_side_by_side_are_continued_as_alone(make_model, tokenizer):
    model = make_model("numpy", "float64", max_positions=90, tokenizer=tokenizer)
    prompts = ["the cat", "the dog ran to the", "a"]
    together = complete(model, prompts, 12, ["at"])
    assert together == [complete(model, [prompt], 12, ["at"])[0] for prompt in prompts]
    whole = ["".join(p.text for p in continue_text(model, prompt, 12, Sampler(0.0), 0)) for prompt in prompts]
    assert together == [text.partition("at")[0] for text in whole]


def test_written_answers_are_judged_by_the_metric(chain):
    model = chain(" the cat sat on a mat\n")
    questions = ({"animal": " the cat", "thing": "sat on a mat"}, {"animal": " the cat sat", "thing": ["on", "on a dog"]})
    task = Task("ring", "{animal}", "thing", questions, metric="exact_match", max_tokens=40)
    exact, loose = run(model, task), run(model, replace(task, metric="f1"))
    assert [answer.answer for answer in exact.answers] == ["sat on a mat", "on a mat"]
    assert exact.share == wilson(1, 2)
    assert [answer.score for answer in loose.answers] == [1, 2 * 2 / 6]
    assert loose.share.value == (1 + 2 / 3) / 2
    assert exact.by_score == {}


@pytest.mark.parametrize("task", [CHOICES, WRITTEN], ids=["chosen", "written"])
@pytest.mark.parametrize("batch", [1, 2, 9])
def test_the_batch_changes_no_answer_and_the_watcher_sees_every_question(make_model, tokenizer, task, batch):
    model, seen = make_model("numpy", "float64", max_positions=90, tokenizer=tokenizer), []
    result = run(model, task, batch=batch, watch=lambda answered, of: seen.append((answered, of)))
    assert [answer.answer for answer in result.answers] == [answer.answer for answer in run(model, task).answers]
    assert seen[-1] == (3, 3)


# Files


@pytest.mark.parametrize("text", FILES, ids=[re.search(r'name = "(.*)"', text)[1] for text in FILES])
def test_the_specifications_tasks_are_read_and_run(text, write_task, make_model, tokenizer):
    task = write_task(text)
    result = run(make_model(max_positions=400, tokenizer=tokenizer), task)
    assert (result.task, result.metric, result.share.n) == (task.name, task.metric, len(task.questions))
    assert 0 <= result.share.low <= result.share.value <= result.share.high <= 1


def test_questions_may_lie_in_a_file_beside_the_task(write_task, tmp_path):
    lines = [json.dumps(fields, ensure_ascii=False) for fields in ({"q": "süß", "a": "x"}, {"q": "d", "a": "y"})]
    (tmp_path / "q.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    task = write_task('template = "{q}"\nanswer = "a"\nchoices = ["x", "y"]\nquestions = "q.jsonl"\n')
    assert task == Task("task", "{q}", "a", ({"q": "süß", "a": "x"}, {"q": "d", "a": "y"}), choices=("x", "y"))


GOOD = 'template = "{q}"\nanswer = "a"\nchoices = ["x", "y"]\nquestions = [{q = "d", a = "y"}]\n'


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('answer = "a"\n', "", "answer must be set"),
        ('answer = "a"', 'answer = "b"', "question 1: the field 'b', which holds the answer, is missing"),
        ('"{q}"', '"{r}"', "question 1: the field 'r', which the template names, is missing"),
        ('["x", "y"]', '["x"]', r"question 1: the choices are \['x'\]; two at least are needed"),
        ('["x", "y"]', '["x", "x", "y"]', "are not all different"),
        ('["x", "y"]', '["x", "z"]', "the answer 'y' is none of the choices x, z"),
        ('["x", "y"]', '["x", 2]', "choices must be texts"),
        ('["x", "y"]', '"from"', "the field 'from' holds no list of choices"),
        ('choices = ["x", "y"]', "", "accuracy needs choices"),
        ('[{q = "d", a = "y"}]', "[]", "there are no questions"),
        ('[{q = "d", a = "y"}]', "[1]", "questions must be tables of fields"),
        ('[{q = "d", a = "y"}]', '[{q = "d", a = []}]', "the field 'a' holds no answer"),
        ('[{q = "d", a = "y"}]', '"missing.jsonl"', "No such file"),
        ('answer = "a"', 'answer = "a"\nmetric = "bleu"', "metric='bleu' is not one of accuracy, exact_match, f1"),
        ('answer = "a"', 'answer = "a"\nscore = "mean"', "score='mean' is not one of sum, token, byte, calibrated"),
        ('answer = "a"', 'answer = "a"\nshots = 1', "shots=1 examples cannot be shown; there are 0"),
        ('answer = "a"', 'answer = "a"\nshots = "1"', "shots is a str; it must be int"),
        ('answer = "a"', 'answer = "a"\nmax_tokens = 0', "max_tokens=0 must be at least 1"),
        ('answer = "a"', 'answer = "a"\ntemplates = "x"', "'templates' is no setting of a task"),
        ('answer = "a"', 'answer = "a"\nexamples = [{q = "d"}]', "example 1: the field 'a', which holds the answer, is missing"),
        ('answer = "a"', "answer =", "is not TOML"),
    ],
)
def test_a_file_that_is_no_task_is_refused_by_what_is_wrong(write_task, old, new, says):
    assert write_task(GOOD).name == "task"
    with pytest.raises((ValueError, OSError), match=says):
        write_task(GOOD.replace(old, new))


def test_lines_that_are_no_json_are_refused(write_task, tmp_path):
    (tmp_path / "q.jsonl").write_text("{nonsense\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"q\.jsonl is not JSON Lines"):
        write_task(GOOD.replace('[{q = "d", a = "y"}]', '"q.jsonl"'))


def test_a_prompt_that_does_not_fit_the_context_is_refused(make_model, tokenizer):
    model = make_model(max_positions=20, tokenizer=tokenizer)
    with pytest.raises(ValueError, match="a question of animals does not fit the model's context of 20 tokens; show fewer"):
        run(model, CHOICES)
    with pytest.raises(ValueError, match="do not fit the model's context of 20"):
        run(model, WRITTEN)
