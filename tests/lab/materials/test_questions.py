"""Questions of four tasks, and the lines to learn them from."""

import re

import numpy as np
import pytest

from refllm.lab.materials import questions
from refllm.lab.materials.questions import TASKS


@pytest.mark.parametrize("name", list(TASKS))
def test_no_question_asks_about_words_that_are_combined_in_what_is_learned(name):
    rng = np.random.default_rng(0)
    asked = {questions.combinations(name, fields)[0] for fields in questions.drawn(name, rng, 60, held_out=True)}
    told = [questions.combinations(name, fields) for fields in questions.drawn(name, rng, 400, held_out=False)]
    assert not asked & {words for combined in told for words in combined}
    assert len(asked) > 10


def test_about_a_fifth_of_all_combinations_is_held_out():
    share = np.mean([questions.is_held_out(person, thing) for person in questions.PEOPLE for thing in questions.BELONGINGS])
    assert 0.1 < share < 0.3
    assert [questions.is_held_out(*words) for words in (("a", "c"), ("c", "a"))] == [True, False]  # 97 + 2 · 99 = 295, 293


def test_moods_are_those_of_their_words():
    found = questions.drawn("classification", np.random.default_rng(1), 40, held_out=False)
    for fields in found:
        assert {fields["first"], fields["second"]} <= set(questions.GOOD if fields["answer"] == "good" else questions.BAD)
        assert fields["first"] != fields["second"]
    assert {fields["answer"] for fields in found} == {"good", "bad"}


def test_translations_put_the_color_behind_the_noun():
    for fields in questions.drawn("translation", np.random.default_rng(1), 20, held_out=False):
        assert fields["answer"] == f"la {questions.NOUNS[fields['noun']]} {questions.COLORS[fields['color']]}"
        words = [choice.split()[1:] for choice in fields["choices"]]
        assert {noun for noun, _ in words} & {questions.NOUNS[fields["noun"]]}
        assert len({noun for noun, _ in words}) == len({color for _, color in words}) == 2  # each half alone leaves two to choose


def test_capitals_are_those_of_their_countries():
    for fields in questions.drawn("recall", np.random.default_rng(1), 20, held_out=False):
        assert fields["answer"] == questions.CAPITALS[fields["country"]]
        assert set(fields["choices"]) <= set(questions.CAPITALS.values())


def test_what_somebody_has_stands_in_the_line_and_so_does_what_others_have():
    places = []
    for fields in questions.drawn("reading", np.random.default_rng(1), 40, held_out=True):
        told = dict(re.findall(r"(\w+) has a (\w+)", fields["told"]))
        assert len(told) == 4
        assert told[fields["person"]] == fields["answer"]
        assert dict(fields["beside"]) | {fields["person"]: fields["answer"]} == told
        assert set(fields["choices"]) == set(told.values())
        places.append(list(told).index(fields["person"]))
    assert set(places) == {0, 1, 2, 3}


@pytest.mark.parametrize("name", list(TASKS))
def test_every_question_has_its_answer_among_different_choices_at_any_place(name):
    task = questions.task(name, questions.drawn(name, np.random.default_rng(2), 30, held_out=True))
    places = []
    for fields in task.questions:
        choices = task.choices_of(fields)
        assert len(set(choices)) == len(choices) == (2 if name == "classification" else 4)
        places.append(choices.index(fields["answer"]))
    assert set(places) == set(range(len(choices)))


def test_solved_questions_are_put_as_the_tasks_put_them():
    fields = {"thing": "film", "first": "dull", "second": "slow", "answer": "bad"}
    task = questions.task("classification", [fields], [fields])
    line = "the film was dull and slow . mood : bad\n"
    assert task.prompt(fields) == line + line.removesuffix(" bad\n")


def test_lines_come_in_their_proportions_and_hold_their_answers():
    lines = questions.lines(np.random.default_rng(0), 400)
    starts = {
        "classification": r"the \w+ was",
        "translation": r"the \w+ \w+ in French",
        "recall": r"\w+ asks",
        "reading": r"\w+ has a",
    }
    counts = {name: sum(bool(re.match(start, line[0][0])) for line in lines) for name, start in starts.items()}
    assert sum(counts.values()) == 400
    for name, weight in questions.LEARNED.items():
        assert counts[name] == pytest.approx(400 / 12 * weight, abs=25)
    for ((question, answer),) in (line for line in lines if "French" in line[0][0]):
        color, noun = question.split()[1:3]
        assert answer == f" la {questions.NOUNS[noun]} {questions.COLORS[color]}"
        assert not questions.is_held_out(color, noun)


def test_a_line_to_read_asks_what_everybody_in_it_has():
    for line in questions.lines(np.random.default_rng(0), 40):
        if line[0][0].endswith(" has a"):
            told, _ = line[0][0].split(" . what has ")
            has = dict(re.findall(r"(\w+) has a (\w+)", told))
            asked = [re.search(r"what has (\w+) \? (\w+) has a$", question).groups() for question, _ in line]
            assert [answer for _, answer in line] == [f" {has[person]}" for person, _ in asked]
            assert all(person == again for person, again in asked)
            assert sorted(person for person, _ in asked) == sorted(has)
            assert not any(questions.is_held_out(*words) for words in has.items())
            assert all(question.startswith(" . what") for question, _ in line[1:])
