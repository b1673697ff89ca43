"""Outcomes of items in a file: those that an experiment kept, or anybody's as JSONL.

One item a line: {"right": [true, false, …], "probability": [0.9, 0.2, …], "features": [3, 17, …]}. `right` is of one answer in
steps, or a list of several attempts' lists. `probability` is the model's of the right step, or `log_probability` its natural
logarithm; `features` numbers what each step asks for.

For votes: {"answers": ["12", "13", …], "answer": "12", "scores": [-1.5, …]}, what several attempts answered, the right answer,
and how good each attempt looks, such as its log-likelihood.

Every line names the same of them. A .npz holds the same as arrays, items first.
"""

import json
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from refllm.array_api import generator

NAMES = ("right", "probability", "log_probability", "features", "answers", "answer", "scores")
FORM = "each item needs `right`, a list of true and false, or `answers`, a list, and `answer`, the right one"


class Measured(NamedTuple):
    """Outcomes of I items of m steps."""

    right: np.ndarray  # (I, m) bool, of the first attempt
    attempts: np.ndarray | None  # (R, I, m) bool where several were made
    probability: np.ndarray | None  # (I, m) float64
    features: np.ndarray | None  # (I, m) int64
    answers: np.ndarray | None = None  # (I, n) int64, the same for equal answers
    answer: np.ndarray | None = None  # (I,) int64, the right one's
    scores: np.ndarray | None = None  # (I, n) float64

    def several(self, count: int, seed: int = 0) -> np.ndarray:
        """Independent attempts (R, I, m): those that were made, or `count` drawn from the model's probabilities.

        Raises ValueError where there are neither.
        """
        if self.attempts is not None:
            return self.attempts
        if self.probability is None:
            raise ValueError(
                "the file holds one attempt and no probabilities, where either several or these are needed: "
                'several are lists in a list, {"right": [[true], [false]]} for two of one step.'
            )
        return generator(seed, "attempts").random((count, *self.probability.shape)) < self.probability

    def item_probability(self) -> np.ndarray:
        """The chance that an attempt is right in all steps, (I,): exact from probabilities, or the share of the attempts."""
        if self.probability is not None:
            return self.probability.prod(axis=1)
        hits = self.hits()
        return self.several(1).all(axis=2).mean(axis=0) if hits is None else hits.mean(axis=1)

    def hits(self) -> np.ndarray | None:
        """Which of the attempts that were made are right, (I, n) bool: by their answers where there are any."""
        if self.answers is not None and self.answer is not None:
            return _agree(self.answers, self.answer)
        return None if self.attempts is None else np.all(self.attempts, axis=2).T


def read_outcomes(path: Path | str) -> Measured:
    """Read a file of outcomes. Raises ValueError for one that holds none, or items that are not alike."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not a file; outcomes are JSONL or a .npz, such as an experiment keeps.")
    columns = _arrays(path) if path.suffix == ".npz" else _lines(path)
    if ("answers" in columns) != ("answer" in columns):
        raise ValueError(f"{path} has one of `answers`, a list, and `answer`, the right one; it needs both or none.")
    if "right" not in columns and "answers" not in columns:
        raise ValueError(f"{path} has no outcomes: {FORM}.")
    answers, answer = _votes(path, columns["answers"], columns["answer"]) if "answers" in columns else (None, None)
    right = _outcomes(path, columns["right"]) if "right" in columns else _agree(answers, answer)[:, :, None]
    attempts = np.moveaxis(right, 1, 0) if right.ndim == 3 else None
    first = right if attempts is None else attempts[0]
    if answers is not None and len(answers) != len(first):
        raise ValueError(f"{path}: there are answers to {len(answers)} items and outcomes of {len(first)}; both need the same.")
    made = answers.shape[1] if answers is not None else None if attempts is None else len(attempts)
    probability, features = _probability(path, columns, first.shape), None
    if "features" in columns:
        features = _numbers(path, "features", columns["features"], "iu", "whole numbers", first.shape).astype(np.int64)
    scores = None
    if "scores" in columns:
        if made is None:
            raise ValueError(f"{path} has scores, but neither several attempts nor `answers` that they could be of.")
        scores = _numbers(path, "scores", columns["scores"], "iuf", "numbers, one for each attempt", (len(first), made))
    return Measured(first, attempts, probability, features, answers, answer, scores)


def _outcomes(path: Path, values: Any) -> np.ndarray:
    """`right` as (I, m) or (I, R, m) bool."""
    right = _even(path, "right", values)
    if right.ndim not in (2, 3) or right.size == 0:
        raise ValueError(f"{path}: `right` has shape {right.shape} in all; it needs (items, steps) or (items, attempts, steps).")
    if right.dtype.kind not in "biu" or not np.isin(right, (0, 1)).all():
        raise ValueError(f"{path}: `right` holds values other than true and false.")
    return right.astype(bool)


def _probability(path: Path, columns: dict[str, Any], shape: tuple[int, ...]) -> np.ndarray | None:
    """`probability`, or e to the power of `log_probability`."""
    if "log_probability" in columns:
        logs = _numbers(path, "log_probability", columns["log_probability"], "iuf", "numbers", shape)
        if np.any(logs > 1e-6):  # as far as rounding may carry the logarithm of 1
            raise ValueError(f"{path}: a log_probability is above 0; it is the natural logarithm of a probability.")
        return np.exp(np.minimum(logs, 0.0))
    if "probability" not in columns:
        return None
    found = _numbers(path, "probability", columns["probability"], "iuf", "numbers", shape)
    if np.any((found < 0) | (found > 1)):
        raise ValueError(f"{path}: a probability is not within 0 … 1.")
    return found


def _votes(path: Path, answers: Any, answer: Any) -> tuple[np.ndarray, np.ndarray]:
    """Answers (I, n) and the right ones (I,) as numbers that only equal answers share."""
    rows, right = (list(column.tolist()) if isinstance(column, np.ndarray) else column for column in (answers, answer))
    if len(rows) != len(right):
        raise ValueError(f"{path}: there are answers to {len(rows)} items and {len(right)} right ones.")
    if not all(isinstance(row, list) and row for row in rows) or len({len(row) for row in rows}) != 1:
        raise ValueError(f"{path}: `answers` must be lists, with as many answers in each: one for each attempt.")
    if any(isinstance(value, list | dict) for row in (*rows, right) for value in row):
        raise ValueError(f"{path}: an answer is a list or an object; answers are text, numbers, true, false or null.")
    names: dict[str, int] = {}
    numbered = [
        [names.setdefault(_name(value), len(names)) for value in (*row, true)] for row, true in zip(rows, right, strict=True)
    ]
    table = np.array(numbered)
    return table[:, :-1], table[:, -1]


def _agree(answers: Any, answer: Any) -> np.ndarray:
    """Which of the answers (I, n) are the right ones (I,)."""
    return np.equal(answers, answer[:, None])


def _name(value: Any) -> str:
    """What an answer is told apart by: 1 and 1.0 are one number, and "1" is text."""
    whole = isinstance(value, float) and value.is_integer()
    return json.dumps(int(value) if whole else value)


def _numbers(path: Path, name: str, values: Any, kinds: str, what: str, shape: tuple[int, ...]) -> np.ndarray:
    """A column of finite numbers of a shape, as float64."""
    found = _even(path, name, values)
    if found.shape != shape:
        raise ValueError(f"{path}: {name} has shape {found.shape} in all; it needs {shape}, as the outcomes have it.")
    if found.dtype.kind not in kinds or np.isnan(found).any():
        raise ValueError(f"{path}: {name} must be {what}.")
    return found.astype(np.float64)


def _even(path: Path, name: str, values: Any) -> np.ndarray:
    """A column as an array, if its items are of one shape."""
    try:
        return np.array(values)
    except ValueError as error:
        raise ValueError(
            f"{path}: `{name}` is of different lengths; all items need the same number of steps and attempts."
        ) from error


def _arrays(path: Path) -> dict[str, Any]:
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files if name in NAMES}
    except (ValueError, zipfile.BadZipFile, EOFError) as error:
        raise ValueError(f"{path} is not a .npz of plain arrays: {error}.") from error


def _lines(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8-sig")  # some editors begin a text with a mark
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not text; outcomes are JSONL or a .npz, such as an experiment keeps.") from error
    rows: list[tuple[int, Any]] = []
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            try:
                rows.append((number, json.loads(line)))
            except json.JSONDecodeError as error:
                raise ValueError(f"line {number} of {path} is not JSON ({error}); outcomes are JSONL or a .npz.") from error
    if not rows or not all(isinstance(row, dict) for _, row in rows):
        raise ValueError(f"{path} has no outcomes: each line is an object, and {FORM}.")
    there = [name for name in NAMES if name in rows[0][1]]
    for number, row in rows:
        for name in NAMES:
            if (name in row) != (name in there):
                has, lacks = (number, rows[0][0]) if name in row else (rows[0][0], number)
                raise ValueError(f"line {has} of {path} has `{name}` and line {lacks} has not; all items need the same.")
    return {name: [row[name] for _, row in rows] for name in there}
