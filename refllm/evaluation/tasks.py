"""Tasks framed as completion: a prompt of solved examples, and the answer that the model chooses or writes.

    choose: argmax over the choices y of score(log p(y | prompt))          write: greedy decoding to a stop string

Few-shot prompts are Brown et al.'s (2020, arXiv:2005.14165, section 2). Choices are compared by one of four scores:

    sum         log p(y | x)
    token       log p(y | x) / tokens of y
    byte        log p(y | x) / bytes of y
    calibrated  log p(y | x) − log p(y | neutral x): how much more likely the question makes y
                (Zhao 2021, arXiv:2102.09690; Holtzman 2021, arXiv:2104.08315)

A task is a TOML file; spec/evaluation/tasks.md describes it.
"""

import json
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from refllm.decoding.generate import generate
from refllm.decoding.sampler import Sampler
from refllm.evaluation.likelihood import Likelihood, check_causal, continuation_log_likelihoods, tokenizer_of
from refllm.evaluation.metrics import METRICS, Share, mean, wilson
from refllm.layers.blocks import blocks
from refllm.models.model import Model
from refllm.tokenizer import StreamDecoder

SCORES = ("sum", "token", "byte", "calibrated")
Fields = Mapping[str, Any]


@dataclass(frozen=True)
class Task:
    """A task, all of it.

    template: a question's text, with its fields in braces    answer: the field that holds the right answer, or a list of several
    questions, examples: their fields by name; the examples are shown solved, before each question
    metric: accuracy, where the model chooses among choices; exact_match or f1, where it writes
    choices: the answers to choose from, or the name of the field that holds each question's own
    score: which of SCORES decides    neutral: the fields of a question that asks nothing, for calibration
    description, between, before_answer: what stands before all, between two examples, before an answer
    stop: strings that end a written answer    max_tokens: of one
    """

    name: str
    template: str
    answer: str
    questions: tuple[Fields, ...]
    metric: str = "accuracy"
    choices: tuple[str, ...] | str = ()
    examples: tuple[Fields, ...] = ()
    shots: int | None = None  # how many examples are shown; all where not given
    description: str = ""
    between: str = "\n\n"
    before_answer: str = " "
    score: str = "sum"
    neutral: Fields | None = None  # every field "N/A" where not given
    stop: tuple[str, ...] = ("\n",)
    max_tokens: int = 64

    def __post_init__(self) -> None:
        _require(self.metric in ("accuracy", *METRICS), f"metric={self.metric!r} is not one of accuracy, {', '.join(METRICS)}")
        _require(self.score in SCORES, f"score={self.score!r} is not one of {', '.join(SCORES)}")
        _require(bool(self.questions), "there are no questions")
        _require(self.max_tokens >= 1, f"max_tokens={self.max_tokens} must be at least 1")
        _require(self.metric != "accuracy" or bool(self.choices), "accuracy needs choices: a list, or the name of a field")
        _require(
            self.shots is None or 0 <= self.shots <= len(self.examples),
            f"shots={self.shots} examples cannot be shown; there are {len(self.examples)}",
        )
        for i, fields in enumerate(self.examples, 1):
            _named(f"example {i}", self.check, fields)
        for i, fields in enumerate(self.questions, 1):
            _named(f"question {i}", self.check, fields)
            _named(f"question {i}", self.check_choices, fields)

    def check(self, fields: Fields) -> None:
        """Raise ValueError unless a question can be put, and has an answer."""
        filled(self.template, fields)
        self.right_answers(fields)

    def check_choices(self, fields: Fields) -> None:
        """Raise ValueError unless an answer that is chosen can be."""
        if self.metric != "accuracy":
            return
        right, choices = self.right_answers(fields), self.choices_of(fields)
        _require(len(choices) > 1 and all(choices), f"the choices are {choices}; two at least are needed, and no empty one")
        _require(len(set(choices)) == len(choices), f"the choices {choices} are not all different")
        _require(set(right) <= set(choices), f"the answer {right[0]!r} is none of the choices {', '.join(choices)}")

    def right_answers(self, fields: Fields) -> list[str]:
        """The answers that count as right; an example is shown with the first."""
        _require(self.answer in fields, f"the field {self.answer!r}, which holds the answer, is missing")
        right = fields[self.answer]
        right = [str(a) for a in right] if isinstance(right, list) else [str(right)]
        _require(bool(right), f"the field {self.answer!r} holds no answer")
        return right

    def choices_of(self, fields: Fields) -> list[str]:
        """The answers to choose from."""
        if not isinstance(self.choices, str):
            return list(self.choices)
        _require(isinstance(fields.get(self.choices), list), f"the field {self.choices!r} holds no list of choices")
        return [str(choice) for choice in fields[self.choices]]

    def prompt(self, fields: Fields) -> str:
        """What the model reads: the description, the solved examples, and the question up to its answer."""
        shown = self.examples[: self.shots]
        solved = [filled(self.template, e) + self.before_answer + self.right_answers(e)[0] + self.between for e in shown]
        return self.description + "".join(solved) + filled(self.template, fields)

    def neutral_prompt(self) -> str:
        """The prompt of a question that asks nothing."""
        names = (match[1] for match in FIELD.finditer(self.template) if match[1])
        return self.prompt(dict.fromkeys(names, "N/A") | dict(self.neutral or {}))


FIELD = re.compile(r"\{\{|\}\}|\{(\w+)\}")


def filled(template: str, fields: Fields) -> str:
    """A template with each {field} replaced by its value; {{ and }} stand for braces. Raises ValueError for a missing field."""

    def value(match: re.Match) -> str:
        if match[1] is None:
            return match[0][0]
        _require(match[1] in fields, f"the field {match[1]!r}, which the template names, is missing")
        return str(fields[match[1]])

    return FIELD.sub(value, template)


def read(path: str | Path) -> Task:
    """The task in a TOML file. Raises ValueError that names what is wrong, OSError where there is no file."""
    path = Path(path)
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not TOML: {error}.") from error
    try:
        return from_table(table, path)
    except ValueError as error:
        raise ValueError(f"{path}: {str(error).rstrip('.')}.") from error


def from_table(table: Mapping[str, Any], path: Path) -> Task:
    """The task in a table of TOML; files that it names lie beside its own."""
    kinds: dict[str, tuple[type, ...]] = {
        **dict.fromkeys(("name", "description", "template", "answer", "between", "before_answer", "metric", "score"), (str,)),
        **dict.fromkeys(("shots", "max_tokens"), (int,)),
        **dict.fromkeys(("choices", "examples", "questions"), (str, list)),
        **{"stop": (list,), "neutral": (dict,)},
    }
    for key, value in table.items():
        _require(key in kinds, f"{key!r} is no setting of a task; there are {', '.join(kinds)}")
        needed = " or ".join(kind.__name__ for kind in kinds[key])
        _require(type(value) in kinds[key], f"{key} is a {type(value).__name__}; it must be {needed}")
    for key in ("template", "answer", "questions"):
        _require(key in table, f"{key} must be set")
    given = {"name": path.stem} | dict(table)
    for key in ("questions", "examples"):
        given[key] = tuple(_read_fields(given.get(key, []), key, path))
    for key in ("choices", "stop"):
        if isinstance(given.get(key), list):
            _require(all(isinstance(item, str) for item in given[key]), f"{key} must be texts")
            given[key] = tuple(given[key])
    return Task(**given)


def _read_fields(given: list | str, key: str, path: Path) -> Iterator[Fields]:
    """The fields of each question: tables of the TOML file, or the lines of the JSON Lines file that it names."""
    several: Any = given
    if isinstance(given, str):
        lines = (path.parent / given).read_text(encoding="utf-8").splitlines()
        try:
            several = [json.loads(line) for line in lines if line.strip()]
        except ValueError as error:
            raise ValueError(f"{given} is not JSON Lines: {error}") from error
    for fields in several:
        _require(isinstance(fields, dict), f"{key} must be tables of fields")
        yield fields


class Answer(NamedTuple):
    """How one question was answered."""

    answer: str  # chosen or written
    right: tuple[str, ...]  # the answers that count as right
    score: float  # by the task's metric: 0 … 1
    nats: Mapping[str, tuple[float, ...]]  # of each choice, by score; empty where the answer was written


class Result(NamedTuple):
    """How a task was solved."""

    task: str
    metric: str
    share: Share  # by the metric, with its confidence interval
    by_score: Mapping[str, Share]  # accuracy by each of SCORES; empty where answers were written
    answers: tuple[Answer, ...]


def _unwatched(answered: int, of: int) -> None:
    """Nobody asks how far it is."""


def run(model: Model, task: Task, *, batch: int = 8, watch: Callable[[int, int], None] = _unwatched) -> Result:
    """Let a model solve a task.

    batch: texts side by side, which changes no result
    watch: called with how many questions are answered, and how many there are
    Raises ValueError for a prompt that does not fit the model's context with its answer.
    """
    check_causal(model)
    if task.metric == "accuracy":
        answers = _choose(model, task, batch, watch)
        names = answers[0].nats
        right = {name: sum(_right(answer, task, i, name) for i, answer in enumerate(answers)) for name in names}
        by_score = {name: wilson(right[name], len(answers)) for name in names}
        return Result(task.name, task.metric, by_score[task.score], by_score, tuple(answers))
    answers = _write(model, task, batch, watch)
    return Result(task.name, task.metric, mean([answer.score for answer in answers]), {}, tuple(answers))


def _right(answer: Answer, task: Task, i: int, score: str) -> bool:
    """Whether the choice that a score prefers is right."""
    return task.choices_of(task.questions[i])[best(answer.nats[score])] in answer.right


def best(scores: Sequence[float]) -> int:
    """The place of the largest, the first of equals."""
    return max(range(len(scores)), key=lambda i: scores[i])


def _choose(model: Model, task: Task, batch: int, watch: Callable[[int, int], None]) -> list[Answer]:
    answers: list[Answer] = []
    neutral, n = task.neutral_prompt(), len(task.questions)
    unasked: dict[str, float] = {}  # log p(choice | neutral prompt)
    for start, stop in blocks(n, batch):
        several = task.questions[start:stop]
        asked = [(task.prompt(fields), choice) for fields in several for choice in task.choices_of(fields)]
        new = dict.fromkeys(choice for _, choice in asked if choice not in unasked)
        pairs = [(prompt, task.before_answer + choice) for prompt, choice in (*asked, *((neutral, c) for c in new))]
        found = continuation_log_likelihoods(model, pairs, batch=batch)
        if any(likelihood.cut for likelihood in found):
            room = f"the model's context of {model.config.max_positions} tokens"
            raise ValueError(f"a question of {task.name} does not fit {room}; show fewer examples (shots).")
        unasked |= {choice: likelihood.total for choice, likelihood in zip(new, found[len(asked) :], strict=True)}
        rest = iter(found)
        answers += [_chosen(task, fields, [next(rest) for _ in task.choices_of(fields)], unasked) for fields in several]
        watch(stop, n)
    return answers


def _chosen(task: Task, fields: Fields, found: Sequence[Likelihood], unasked: Mapping[str, float]) -> Answer:
    """The answer to a question, given how likely each of its choices is after it, and after the neutral question."""
    choices, right = task.choices_of(fields), task.right_answers(fields)
    nats = {
        "sum": tuple(x.total for x in found),
        "token": tuple(x.per_token for x in found),
        "byte": tuple(x.total / len(c.encode("utf-8", "replace")) for x, c in zip(found, choices, strict=True)),
        "calibrated": tuple(x.total - unasked[c] for x, c in zip(found, choices, strict=True)),
    }
    chosen = choices[best(nats[task.score])]
    return Answer(chosen, tuple(right), float(chosen in right), nats)


def _write(model: Model, task: Task, batch: int, watch: Callable[[int, int], None]) -> list[Answer]:
    answers: list[Answer] = []
    judge, n = METRICS[task.metric], len(task.questions)
    for start, stop in blocks(n, batch):
        several = task.questions[start:stop]
        prompts = [(task.prompt(fields) + task.before_answer).rstrip(" ") for fields in several]  # a word brings its space
        written = complete(model, prompts, task.max_tokens, task.stop)
        for fields, answer in zip(several, written, strict=True):
            right = task.right_answers(fields)
            answers.append(Answer(answer.strip(), tuple(right), max(judge(answer, r) for r in right), {}))
        watch(stop, n)
    return answers


def complete(model: Model, prompts: Sequence[str], max_tokens: int, stop: Sequence[str]) -> list[str]:
    """Continue prompts by greedy decoding, side by side, each until a stop string, which is left out, or the document's end.

    Raises ValueError for a prompt that does not fit the context with max_tokens more.
    """
    tokenizer = tokenizer_of(model)
    begin, eos = ([] if tokenizer.bos is None else [tokenizer.bos]), tokenizer.eos
    rows = [begin + tokenizer.encode(prompt, disallowed_special=()) for prompt in prompts]
    decoders, texts, ended = [StreamDecoder(tokenizer, row) for row in rows], [""] * len(rows), [False] * len(rows)
    for step in generate(model, rows, max_tokens, Sampler(0.0), seed=0, stop=() if eos is None else (eos,)):
        for b, token in enumerate(step.tokens.tolist()):
            if ended[b] or token in (-1, eos):
                ended[b] = True
                continue
            texts[b] += decoders[b].push(token)
            ended[b] = any(text in texts[b] for text in stop)
        if all(ended):
            break
    texts = [text if done else text + decoder.finish() for text, done, decoder in zip(texts, ended, decoders, strict=True)]
    return [text[: min((text.find(s) for s in stop if s in text), default=len(text))] for text in texts]


def _named(what: str, check: Callable[[Fields], None], fields: Fields) -> None:
    """Check, and say of what it is where it fails."""
    try:
        check(fields)
    except ValueError as error:
        raise ValueError(f"{what}: {error}") from None


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise ValueError(f"{otherwise}.")
