"""Why a model errs: A, noise that another attempt removes; B, steps that are hard wherever they stand; C, a skill that it lacks.

The product law EM = Πₖ qₖ holds for all three as long as errors lie scattered, so it tells none of them apart. Three things do:

    another attempt at the same item    errors at the same cell, an item's step, come back (B, C) or do not (A)
    over-dispersion                     some items have more errors than chance: φ = Var(errors of an item) / Σ qₖ(1 − qₖ)
    concentration by feature            what comes back sits in a few features (C) or anywhere (B)

A cell with e errors in R attempts is easy or hard: e is drawn from one of two binomials, whose rates and share are fitted by
expectation–maximisation. Errors of easy cells are A. Those of hard cells are C as far as the cell's feature explains whether it
is hard, and B for the rest.
"""

import math
from typing import Any, NamedTuple

import numpy as np

from refllm.array_api import generator
from refllm.lab.reliability.yields import checked, exact_match, shuffles, two_sided

NAMED = 0.25  # a cause with at least this share of the errors is named
THROUGHOUT = 0.5  # a feature is named as a lacking skill where more than this share of its cells is hard


class Battery(NamedTuple):
    """What the tests say of outcomes."""

    accuracy: float  # of steps
    exact_match: float  # of items
    product: float  # Πₖ qₖ
    product_p: float  # how often shuffled steps lie as far from it
    dispersion: float  # φ; 1 for independent steps
    dispersion_p: float  # how often shuffled steps are as dispersed
    persistent_share: float  # of the variance of errors: 0 where another attempt is a new throw, 1 where it changes nothing
    noise: float  # A's share of the errors
    hard: float  # B's
    missing: float  # C's
    features: tuple[int, ...]  # the features that make up C

    @property
    def causes(self) -> str:
        """The letters of the causes with a share worth naming, such as "A+B"; "" where there are no errors."""
        shares = {"A": self.noise, "B": self.hard, "C": self.missing}
        return "+".join(cause for cause, share in shares.items() if share >= NAMED)


def battery(attempts: Any, features: Any = None, permutations: int = 300, seed: int = 0) -> Battery:
    """Judge attempts (R, I, m) bool: right or not, R independent attempts at I items of m steps.

    features: (I, m) integers, what each step asks for; None: nothing is known, and C cannot be told from B
    Raises ValueError for fewer than two attempts or other shapes.
    """
    attempts = np.asarray(attempts)
    if attempts.ndim != 3 or len(attempts) < 2:
        raise ValueError(f"attempts have shape {attempts.shape}; telling noise from the rest needs (attempts ≥ 2, items, steps).")
    attempts = attempts.astype(bool)
    right = checked(attempts[0])
    q = right.mean(axis=0)
    expected = float((q * (1 - q)).sum())
    em, phi, null = float(exact_match(right)[-1]), _dispersion(right, expected), []
    for s in shuffles(right, permutations, seed):
        null.append((float(s.all(axis=1).mean()), _dispersion(s, expected)))
    ems, phis = np.array(null).reshape(-1, 2).T
    noise, hard, missing, lacking = shares((~attempts).sum(axis=0), len(attempts), features)
    return Battery(
        accuracy=float(attempts.mean()),
        exact_match=em,
        product=float(q.prod()),
        product_p=two_sided(em, ems),
        dispersion=phi,
        dispersion_p=float((1 + (phis >= phi - 1e-12).sum()) / (1 + len(phis))),
        persistent_share=persistent_share(attempts),
        noise=noise,
        hard=hard,
        missing=missing,
        features=lacking,
    )


def _dispersion(right: np.ndarray, expected: float) -> float:
    return float((~right).sum(axis=1).var()) / expected if expected else 1.0


def persistent_share(attempts: np.ndarray) -> float:
    """The covariance of two halves' error rates over cells, over the variance of a single throw: within 0 … 1 but for noise.

    attempts: (R, I, m) bool; an odd one out is left aside
    """
    half = len(attempts) // 2
    one, other = ((~part).mean(axis=0).ravel() for part in (attempts[:half], attempts[half : 2 * half]))
    p = attempts.mean()
    return float(np.cov(one, other)[0, 1] / (p * (1 - p))) if 0 < p < 1 else 0.0


def persistent_share_exact(probability: Any) -> float:
    """The same from each cell's probability to be right (I, m), as a model gives it: Var(p) / (p̄(1 − p̄))."""
    p = np.asarray(probability)
    mean = float(p.mean())
    return float(p.var() / (mean * (1 - mean))) if 0 < mean < 1 else 0.0


def shares(errors: np.ndarray, attempts: int, features: Any = None) -> tuple[float, float, float, tuple[int, ...]]:
    """The shares of A, B and C in the errors (I, m) of so many attempts, and the features of C."""
    total = errors.sum()
    if not total:
        return 0.0, 0.0, 0.0, ()
    chance = hardness(errors, attempts)  # (I, m): how surely each cell is hard
    lasting = float((errors * chance).sum() / total)
    if features is None:
        return 1 - lasting, lasting, 0.0, ()
    features = np.asarray(features)
    if features.shape != errors.shape:
        raise ValueError(f"features have shape {features.shape}; they need that of items and steps, {errors.shape}.")
    names, which = np.unique(features, return_inverse=True)
    which = which.reshape(-1)
    missing = lasting * explained(chance.ravel(), which)
    means = np.bincount(which, weights=chance.ravel()) / np.bincount(which)
    lacking = names[means > THROUGHOUT] if missing >= NAMED * lasting else ()
    return 1 - lasting, lasting - missing, missing, tuple(int(name) for name in lacking)


class Concentration(NamedTuple):
    """The errors of features, the most often wrong first: (F,) each."""

    steps: np.ndarray  # the share of all steps that have these features
    errors: np.ndarray  # the share of all errors that lie in them
    by_chance: np.ndarray  # what it is on average where errors are shuffled over the steps
    p_value: float  # how often shuffling crowds as many errors into a hundredth of the features (one at least)

    @property
    def top(self) -> float:
        """The share of the errors in that hundredth."""
        return float(self.errors[max(1, len(self.errors) // 100) - 1])


def concentration(errors: Any, features: Any, permutations: int = 100, seed: int = 0) -> Concentration:
    """How errors (I, m), counts or true and false, crowd in a few features (I, m)."""
    errors, which = np.ravel(errors).astype(float), np.unique(features, return_inverse=True)[1].ravel()
    asked = np.bincount(which)

    def crowd(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        wrong = np.bincount(which, weights=values)
        order = np.argsort(-wrong / asked, kind="stable")
        return np.cumsum(asked[order]) / len(values), np.cumsum(wrong[order]) / max(1.0, wrong.sum())

    steps, own = crowd(errors)
    rng, first = generator(seed, "concentration"), max(1, len(asked) // 100) - 1
    curves = [crowd(rng.permutation(errors)) for _ in range(permutations)]
    as_many = sum(shuffled[first] >= own[first] - 1e-12 for _, shuffled in curves)
    by_chance = np.mean([np.interp(steps, x, y) for x, y in curves], axis=0)
    return Concentration(steps, own, by_chance, (1 + as_many) / (1 + permutations))


def explained(x: np.ndarray, which: np.ndarray) -> float:
    """How much of the variance of x (n,) its group `which` (n,) explains: the intraclass correlation, estimated from the mean
    squares between and within groups (Fisher 1925), within 0 … 1. 0 where every group has one member.
    """
    sizes = np.bincount(which)
    n, groups = len(x), len(sizes)
    if n == groups or groups == 1:
        return 0.0
    means = np.bincount(which, weights=x) / sizes
    between = float((sizes * (means - x.mean()) ** 2).sum()) / (groups - 1)
    within = float(((x - means[which]) ** 2).sum()) / (n - groups)
    typical = (n - float((sizes**2).sum()) / n) / (groups - 1)  # the size of a group
    total = between + (typical - 1) * within
    return min(1.0, max(0.0, (between - within) / total)) if total > 0 else 0.0


def hardness(errors: np.ndarray, attempts: int, rounds: int = 200) -> np.ndarray:
    """The probability that each cell with so many errors is one of the hard ones: the shape of `errors`."""
    seen = np.arange(attempts + 1)
    counts = np.bincount(errors.ravel(), minlength=attempts + 1).astype(float)
    overall = float((counts @ seen) / (counts.sum() * attempts))
    easy, hard, weight = overall / 2, max(0.5, 2 * overall), 0.01
    single = _log_binomial(seen, attempts, overall)
    for _ in range(rounds):
        logs = np.stack(
            [np.log1p(-weight) + _log_binomial(seen, attempts, easy), np.log(weight) + _log_binomial(seen, attempts, hard)]
        )
        top = logs.max(axis=0)
        likelihood = top + np.log(np.exp(logs - top).sum(axis=0))
        posterior = np.exp(logs[1] - likelihood)
        weight = float(np.clip((counts @ posterior) / counts.sum(), 1e-12, 1 - 1e-12))
        hard = float((counts * posterior) @ seen / max(counts @ posterior, 1e-300) / attempts)
        easy = float((counts * (1 - posterior)) @ seen / max(counts @ (1 - posterior), 1e-300) / attempts)
    # two kinds of cells have two more constants than one kind: Schwarz's criterion asks whether they are worth it
    if 2 * float(counts @ (likelihood - single)) < 2 * math.log(counts.sum()):
        posterior = np.zeros(attempts + 1) if overall < 0.5 else np.ones(attempts + 1)
    return posterior[errors]


def _log_binomial(k: np.ndarray, n: int, p: float) -> np.ndarray:
    """ln of the binomial probabilities, their coefficients left out, since all models share them."""
    p = min(max(p, 1e-9), 1 - 1e-9)
    return k * math.log(p) + (n - k) * math.log1p(-p)
