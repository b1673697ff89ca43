"""A table of training runs: how large, on how much, for how many operations, to which loss. From any CSV, JSON or JSON Lines."""

import csv
import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

NAMES = {  # what a column may be called, the likeliest name first; compared without case, blanks, hyphens and underscores
    "parameters": ("parameters", "params", "nparameters", "n", "modelsize", "size"),
    "tokens": ("tokens", "ntokens", "d", "trainingtokens", "datasetsize", "data"),
    "flops": ("flops", "flop", "c", "trainingflop", "trainingflops", "compute"),
    "loss": ("loss", "l", "testloss", "validationloss", "valloss", "heldoutloss"),
    "run": ("run", "runid", "name", "id"),
    "seed": ("seed",),
    "unit": ("unit", "lossunit"),
}
UNITS = ("nats/token", "bits/token", "nats/byte", "bits/byte", "nats/character", "bits/character")
LIKELY = 300.0  # FLOPs are between 6·N·D over this and 6·N·D times this; beyond, one of the three is in another unit


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

    The file is a CSV (with commas, semicolons or tabs), JSON Lines, a JSON array of objects, or the results.json of a sweep.
    unit: of the loss, where the file has no column for it; nats/token if neither says
    Raises ValueError for a file without such a table, a missing column, a value that is not a positive number, or mixed units.
    """
    path = Path(path)
    rows = _rows(path)
    if not rows:
        raise ValueError(f"{path} holds no runs; each needs parameters, tokens or flops, and a loss.")
    has = list(dict.fromkeys(key for row in rows for key in row))
    names = {key: _column(has, key) for key in NAMES}
    for needed in ("parameters", "loss"):
        if names[needed] is None:
            raise ValueError(f"{path} has no column {needed}; it has {_listed(has)}.")
    if names["tokens"] is None and names["flops"] is None:
        raise ValueError(f"{path} has neither tokens nor flops; it has {_listed(has)}.")
    units = {row.get(names["unit"]) or "no unit" for row in rows} if names["unit"] else {unit or UNITS[0]}
    if unit is not None and unit not in units:
        raise ValueError(f"--unit is {unit}, but {path} has losses in {' and '.join(sorted(map(str, units)))}; leave --unit out.")
    read = {key: name for key, name in names.items() if name is not None and key != "unit"} | {"place": "place"}
    runs = table(({key: row.get(name) for key, name in read.items()} for row in rows), units, str(path))
    _check_scale(runs, [f"{row['place']} of {path}" for row in rows])
    return runs


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
        where = f"{row.get('place', f'run {i}')} of {source}"
        N, loss = (_number(row, key, where) for key in ("parameters", "loss"))
        by_flops = _given(row, "flops") and not _given(row, "tokens")
        D = _number(row, "flops", where) / (6 * N) if by_flops else _number(row, "tokens", where)
        C = _number(row, "flops", where) if _given(row, "flops") else 6 * N * D
        name = str(row["run"] if _given(row, "run") else f"{N:g}/{row.get('seed') or 0}")
        for key, value in zip(found, (N, D, C, loss, name), strict=True):
            found[key].append(value)
    columns: dict[str, Any] = {key: np.array(values, dtype=None if key == "run" else float) for key, values in found.items()}
    return Runs(**columns, unit=unit)


def _rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a file, each with its `place` in it."""
    if path.is_dir():
        raise ValueError(f"{path} is a folder; name a table of runs in it, such as runs.csv.")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise ValueError(f"{path} is not UTF-8 text; runs are CSV, JSON Lines or JSON.")
    return _of_json(text, path) if text.lstrip()[:1] in ("[", "{") else _of_csv(text, path)


def _of_json(text: str, path: Path) -> list[dict[str, Any]]:
    try:
        try:
            whole = json.loads(text)
        except json.JSONDecodeError:
            whole = [json.loads(line) for line in text.split("\n") if line.strip()]
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is neither JSON nor JSON Lines: {error}.") from error
    if isinstance(whole, dict):
        whole = whole["tables"].get("runs") if isinstance(whole.get("tables"), dict) else [whole]
    if not isinstance(whole, list) or not all(isinstance(row, dict) for row in whole):
        raise ValueError(
            f'{path} holds JSON that is not a list of runs; a run looks like {{"parameters": 1e6, "tokens": 2e7, "loss": 3.5}}.'
        )
    return [row | {"place": f"run {i}"} for i, row in enumerate(whole, start=1)]


def _of_csv(text: str, path: Path) -> list[dict[str, Any]]:
    lines = text.splitlines()
    head = next((line for line in lines if line.strip()), "")
    separator = max(",;\t", key=head.count)
    reader = csv.reader(lines, delimiter=separator, skipinitialspace=True)
    try:
        cells = [(reader.line_num, [cell.strip() for cell in line]) for line in reader if any(cell.strip() for cell in line)]
    except csv.Error as error:
        raise ValueError(f"{path}, line {reader.line_num}: this is not CSV ({error}).") from error
    if not cells:
        return []
    header = cells[0][1]
    if all(_is_number(name) for name in header):
        raise ValueError(f"{path} has no header; its first line must name the columns: parameters,tokens,loss.")
    rows = []
    for number, values in cells[1:]:
        if len(values) < len(header) or any(values[len(header) :]):
            has = f"line {number} of {path} has {len(values)} cells for {len(header)} columns"
            raise ValueError(f"{has}; give every number, without thousands separators.")
        rows.append(dict(zip(header, values, strict=False)) | {"place": f"line {number}"})
    if len(set(map(_plain, header))) < len(header):
        twice = next(name for i, name in enumerate(header) if _plain(name) in map(_plain, header[:i]))
        raise ValueError(f"{path} has two columns {twice or 'without a name'!r}; give each another name.")
    return rows


def _plain(name: str) -> str:
    return name.lower().replace(" ", "").replace("_", "").replace("-", "")


def _column(has: Iterable[str], key: str) -> str | None:
    """The column that a key's values stand in."""
    plain = {_plain(name): name for name in has if name != "place"}
    return next((plain[name] for name in NAMES[key] if name in plain), None)


def _listed(has: Iterable[str]) -> str:
    names = [name for name in has if name != "place"]
    return ", ".join(names) + ("" if len(names) > 1 else " alone (columns are separated by commas, semicolons or tabs)")


def _given(row: Mapping[str, Any], key: str) -> bool:
    return row.get(key) not in (None, "")


def _is_number(said: Any) -> bool:
    try:
        float(said)
    except (TypeError, ValueError):
        return False
    return True


def _number(row: Mapping[str, Any], key: str, where: str) -> float:
    if not _given(row, key):
        raise ValueError(f"{where} has no {key}; add it or leave this run out.")
    said = row[key]
    if isinstance(said, bool) or not _is_number(said):
        raise ValueError(f"{where} has {key} {said!r}, which is not a number; write it like 1234567 or 1.2e6.")
    value = float(said)
    if not 0 < value < math.inf:
        what = f"{where} has {key} {said!r}, which is not a positive number"
        raise ValueError(f"{what}; leave this run out, it diverged." if key == "loss" and not value <= 0 else f"{what}.")
    return value


def _check_scale(runs: Runs, places: list[str]) -> None:
    """Raise ValueError for numbers that cannot be parameters, tokens and operations counted one by one."""
    for name in ("parameters", "tokens"):
        for place, value in zip(places, runs.column(name), strict=True):
            if value < 1:
                raise ValueError(f"{place} has {value:.3g} {name}; count them one by one, not in millions or billions.")
    for place, ratio in zip(places, runs.flops / (6 * runs.parameters * runs.tokens), strict=True):
        if not 1 / LIKELY < ratio < LIKELY:
            said = f"{place} has flops that are {ratio:.2g} times 6·N·D"
            raise ValueError(f"{said}; count parameters, tokens and operations one by one, not in millions or petaFLOPs.")
