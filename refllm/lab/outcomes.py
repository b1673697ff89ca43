"""Outcomes of items in a file: those that an experiment kept, or anybody's as JSONL.

One item a line: {"right": [true, false, …], "probability": [0.9, 0.2, …], "features": [3, 17, …]}. `right` is of one answer in
steps, or a list of several attempts' lists. `probability` is the model's of the right step, `features` what each step asks for;
either may be missing. A .npz holds the same as arrays (items, steps).
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from refllm.array_api import generator


class Measured(NamedTuple):
    """Outcomes of I items of m steps."""

    right: np.ndarray  # (I, m) bool, of the first attempt
    attempts: np.ndarray | None  # (R, I, m) bool where several were made
    probability: np.ndarray | None  # (I, m) float64
    features: np.ndarray | None  # (I, m) int64

    def several(self, count: int, seed: int = 0) -> np.ndarray:
        """Independent attempts (R, I, m): those that were made, or `count` drawn from the model's probabilities.

        Raises ValueError where there are neither.
        """
        if self.attempts is not None:
            return self.attempts
        if self.probability is None:
            raise ValueError("the file holds one attempt and no probabilities; telling noise from the rest needs either.")
        return generator(seed, "attempts").random((count, *self.probability.shape)) < self.probability

    def item_probability(self) -> np.ndarray:
        """The chance that an attempt is right in all steps, (I,): exact from probabilities, or the share of the attempts."""
        if self.probability is not None:
            return self.probability.prod(axis=1)
        return self.several(1).all(axis=2).mean(axis=0)


def read_outcomes(path: Path | str) -> Measured:
    """Read a file of outcomes. Raises ValueError for one that holds none, or items of different lengths."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not a file; outcomes are a JSONL or a .npz, such as an experiment keeps.")
    columns = _arrays(path) if path.suffix == ".npz" else _lines(path)
    if "right" not in columns:
        raise ValueError(f"{path} has no outcomes: each item needs `right`, a list of true and false.")
    try:
        right = np.array(columns["right"])
        probability = np.array(columns["probability"], dtype=float) if "probability" in columns else None
        features = np.array(columns["features"], dtype=np.int64) if "features" in columns else None
    except ValueError as error:
        raise ValueError(f"{path} has items of different lengths; all need the same number of steps.") from error
    if right.ndim not in (2, 3) or right.size == 0 or right.dtype.kind not in "bi":
        raise ValueError(f"{path}: `right` has shape {right.shape} in all; it needs (items, steps) or (items, attempts, steps).")
    attempts = np.moveaxis(right.astype(bool), 1, 0) if right.ndim == 3 else None
    first = right.astype(bool) if attempts is None else attempts[0]
    for name, values in (("probability", probability), ("features", features)):
        if values is not None and values.shape != first.shape:
            raise ValueError(f"{path}: {name} has shape {values.shape} in all; it needs that of items and steps, {first.shape}.")
    if probability is not None and not np.all((probability >= 0) & (probability <= 1)):
        raise ValueError(f"{path}: a probability is not within 0 … 1.")
    return Measured(first, attempts, probability, features)


def _arrays(path: Path) -> dict[str, Any]:
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


def _lines(path: Path) -> dict[str, Any]:
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if line.strip():
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError as error:
                raise ValueError(f"line {number} of {path} is not JSON: {error}.") from error
    if not rows or not all(isinstance(row, dict) for row in rows):
        raise ValueError(f"{path} has no outcomes: each line is an object with `right`, a list of true and false.")
    return {name: [row.get(name) for row in rows] for name in rows[0] if name in ("right", "probability", "features")}
