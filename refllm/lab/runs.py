"""A table of training runs: how large, on how much, for how many operations, to which loss. Any CSV or JSONL will do."""

import csv
import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

NAMES = {  # what a column may be called; compared without case, blanks and underscores
    "parameters": ("parameters", "params", "nparameters", "n", "modelsize", "size"),
    "tokens": ("tokens", "ntokens", "d", "trainingtokens", "datasetsize", "data"),
    "flops": ("flops", "flop", "c", "trainingflop", "trainingflops", "compute"),
    "loss": ("loss", "l", "testloss", "validationloss", "valloss", "heldoutloss"),
    "run": ("run", "runid", "name", "id"),
    "seed": ("seed",),
    "unit": ("unit", "lossunit"),
}
UNITS = {"nats/token": 1.0, "bits/token": math.log(2), "nats/byte": 1.0, "bits/byte": math.log(2)}  # in nats
UNITS |= {"nats/character": 1.0, "bits/character": math.log(2)}


class Runs(NamedTuple):
    """One entry a measured loss; several may come from one run, at several numbers of tokens."""

    parameters: np.ndarray  # (n,) float64
    tokens: np.ndarray  # (n,) float64
    flops: np.ndarray  # (n,) float64
    loss: np.ndarray  # (n,) float64, in `unit`
    run: np.ndarray  # (n,) of str: which entries come from one run and so err together
    unit: str  # of the loss

    def chosen(self, keep: np.ndarray) -> "Runs":
        """The entries that a mask or an index (n,) picks."""
        return Runs(self.parameters[keep], self.tokens[keep], self.flops[keep], self.loss[keep], self.run[keep], self.unit)

    def column(self, name: str) -> np.ndarray:
        """parameters, tokens, flops or loss, (n,)."""
        return getattr(self, name)


def read_runs(path: Path | str, unit: str | None = None) -> Runs:
    """Read a table with columns for parameters and loss, and for tokens or training FLOPs; the missing one follows by C = 6·N·D.

    unit: of the loss, where the file has no column for it; nats/token if neither says
    Raises ValueError for a missing column, a value that is no positive number, or losses in different units.
    """
    path = Path(path)
    rows = _rows(path)
    if not rows:
        raise ValueError(f"{path} holds no runs; each needs parameters, tokens and a loss.")
    names = {key: _column(rows[0], key) for key in NAMES}
    for needed in ("parameters", "loss"):
        if names[needed] is None:
            raise ValueError(f"{path} has no column {needed}; it has {', '.join(rows[0])}.")
    if names["tokens"] is None and names["flops"] is None:
        raise ValueError(f"{path} has neither tokens nor flops; it has {', '.join(rows[0])}.")
    units = {row[names["unit"]] for row in rows} if names["unit"] else {unit or "nats/token"}
    return table(
        (
            {key: row[name] for key, name in names.items() if name is not None and key != "unit"} | {"line": i}
            for i, row in enumerate(rows, start=1)
        ),
        units,
        str(path),
    )


def table(rows: Iterable[Mapping[str, Any]], units: Iterable[str], source: str = "the table") -> Runs:
    """Runs from rows with parameters, loss, tokens or flops, and perhaps run or seed. Raises ValueError as `read_runs` does."""
    units = set(units)
    if len(units) != 1:
        raise ValueError(f"{source} mixes losses in {' and '.join(sorted(map(str, units)))}; one fit needs one unit.")
    (unit,) = units
    if unit not in UNITS:
        raise ValueError(f"{source}: the loss's unit is {unit!r}; it must be one of {', '.join(UNITS)}.")
    found: dict[str, list[Any]] = {key: [] for key in ("parameters", "tokens", "flops", "loss", "run")}
    for i, row in enumerate(rows, start=1):
        line = row.get("line", i)
        N, loss = (_number(row, key, line, source) for key in ("parameters", "loss"))
        D = _number(row, "tokens", line, source) if "tokens" in row else _number(row, "flops", line, source) / (6 * N)
        C = _number(row, "flops", line, source) if "flops" in row else 6 * N * D
        name = str(row.get("run", f"{N:g}/{row.get('seed', 0)}"))
        for key, value in zip(found, (N, D, C, loss, name), strict=True):
            found[key].append(value)
    columns: dict[str, Any] = {key: np.array(values, dtype=None if key == "run" else float) for key, values in found.items()}
    return Runs(**columns, unit=unit)


def _rows(path: Path) -> list[dict[str, Any]]:
    text = path.read_text(encoding="utf-8-sig")
    try:
        if text.lstrip().startswith("["):
            return json.loads(text)
        if text.lstrip().startswith("{"):
            return [json.loads(line) for line in text.splitlines() if line.strip()]
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not JSON: {error}.") from error
    return list(csv.DictReader(text.splitlines()))


def _column(row: Mapping[str, Any], key: str) -> str | None:
    plain = {name.lower().replace(" ", "").replace("_", "").replace("-", ""): name for name in row if name}
    return next((plain[name] for name in NAMES[key] if name in plain), None)


def _number(row: Mapping[str, Any], key: str, line: int, source: str) -> float:
    try:
        value = float(row[key])
    except (TypeError, ValueError):
        value = math.nan
    if not 0 < value < math.inf:
        said = f"run {line} of {source} has {key} {row[key]!r}, which is no positive number"
        raise ValueError(f"{said}; take the run out, it diverged." if key == "loss" else f"{said}.")
    return value
