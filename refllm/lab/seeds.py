"""Means and ranges over models that differ in their seeds alone."""

from collections.abc import Sequence
from typing import Any

import numpy as np


def over_seeds(
    rows: Sequence[dict[str, Any]], shared: Sequence[str], judged: str, also: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """A row for each combination of the columns `shared`, as they first come: the mean, the least and the greatest of the column
    `judged`, and the means of the columns `also`.
    """
    found = []
    for about in dict.fromkeys(tuple(row[name] for name in shared) for row in rows):
        mine = [row for row in rows if tuple(row[name] for name in shared) == about]
        means = {name: float(np.mean([row[name] for row in mine])) for name in (judged, *also)}
        values = [row[judged] for row in mine]
        found.append(dict(zip(shared, about, strict=True)) | means | {"least": min(values), "greatest": max(values)})
    return found
