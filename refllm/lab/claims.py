"""The claims about scale in one table: collected from the experiments that decide them, judged on the results that are there."""

import dataclasses
import importlib
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from refllm.atomic import write_atomically
from refllm.lab.experiment import Report, Result, conduct, csv_text, save
from refllm.lab.experiments import EXPERIMENTS, experiment, scaling_claims
from refllm.lab.verdict import UNDECIDABLE, Claim, Finding

JUDGES = ("scaling_claims", "reliability_claims")  # modules with claims that are not experiments


class Judged(NamedTuple):
    """A claim and what was found."""

    claim: Claim
    finding: Finding

    def row(self) -> dict[str, Any]:
        """Both as one row of a table."""
        c, f = self.claim, self.finding
        about = {"number": c.number, "claim": c.statement, "formula": c.formula, "published": c.published}
        return about | f._asdict() | {"experiments": " ".join(c.needs)}


def collected() -> list[Claim]:
    """All claims by number. Raises ValueError where two have one number or one needs an experiment that is not there."""
    modules = [experiment(name) for name in EXPERIMENTS] + [
        importlib.import_module(f"refllm.lab.experiments.{name}") for name in JUDGES
    ]
    found = sorted((claim for module in modules for claim in getattr(module, "CLAIMS", ())), key=lambda claim: claim.number)
    for claim, following in zip(found, found[1:], strict=False):
        if claim.number == following.number:
            raise ValueError(f"two claims have the number {claim.number}: {claim.statement!r} and {following.statement!r}.")
    for claim in found:
        for name in claim.needs:
            experiment(name)
    return found


def chosen(numbers: Collection[int]) -> list[Claim]:
    """The claims with these numbers, all of them where none is named. Raises ValueError for a number without a claim."""
    claims = collected()
    known = {claim.number for claim in claims}
    if missing := sorted(set(numbers) - known):
        raise ValueError(f"there is no claim {missing[0]}; choose among {', '.join(map(str, sorted(known)))}.")
    return [claim for claim in claims if not numbers or claim.number in numbers]


def settings_for(module: Any, folder: Path, quick: bool) -> Any:
    """The settings to conduct an experiment with: those of a result in the folder, whatever they are, so that it is used; a
    quick result only where a quick one is asked for.
    """
    wanted = module.QUICK if quick else module.Settings()
    path = folder / module.NAME / "settings.json"
    there = restored(module.Settings, json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else None
    return wanted if there is None or (there == module.QUICK and not quick) else there


def restored(kind: type, values: Mapping[str, Any]) -> Any:
    """Settings from their JSON, None where they are an earlier version's."""
    if set(values) != {field.name for field in dataclasses.fields(kind)}:
        return None
    return kind(**{name: _tuples(value) for name, value in values.items()})


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def needed(claims: Iterable[Claim]) -> list[str]:
    """The experiments that claims rest on, in the order of their table."""
    wanted = {name for claim in claims for name in claim.needs}
    return [name for name in EXPERIMENTS if name in wanted]


def conducted(names: Sequence[str], folder: Path, quick: bool, workers: int, report: Report) -> dict[str, Result]:
    """The results of experiments by name: read from the folder where they are there, the others conducted."""
    results = {}
    for i, name in enumerate(names, start=1):
        module = experiment(name)
        settings = settings_for(module, folder, quick)
        report(f"{i} of {len(names)}  {name}: {EXPERIMENTS[name]}")
        results[name] = conduct(module, settings, folder, workers, lambda line: report(f"  {line}"))
    return results


def judged(claims: Iterable[Claim], results: Mapping[str, Result]) -> list[Judged]:
    """The claims judged. Where a result does not suffice the claim is undecidable, and the reason is why."""
    found = []
    for claim in claims:
        try:
            finding = claim.judge({name: results[name] for name in claim.needs})
        except ValueError as error:
            finding = Finding(None, None, None, "", UNDECIDABLE, str(error))
        found.append(Judged(claim, finding))
    return found


def keep(found: Sequence[Judged], results: Mapping[str, Result], place: Path) -> None:
    """Write the table as JSON and CSV into a folder, and draw the claims' own plots."""
    rows = [one.row() for one in found]
    place.mkdir(parents=True, exist_ok=True)
    write_atomically(place / "claims.json", json.dumps({"claims": rows}, indent=1).encode())
    write_atomically(place / "claims.csv", csv_text(rows).encode())
    if "sweep" in results:
        try:
            save(scaling_claims.figures(results), place)
        except (ImportError, ValueError):  # no matplotlib, or a sweep too small for laws, which its claims then say
            return
