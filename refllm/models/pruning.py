"""Fewer n-grams: those whose loss changes the model least go first (Stolcke 1998, arXiv:cs/0006025).

Without hw, p(w | h) becomes b′(h) · p(w | h′), and what h predicts changes by the relative entropy

    D = −P(h) · ( p(w|h) · [log p(w|h′) + log b′(h) − log p(w|h)] + (1 − Σ_v p(v|h)) · [log b′(h) − log b(h)] )

over the v kept after h, with b(h) = (1 − Σ_v p(v|h)) / (1 − Σ_v p(v|h′)) and b′ the same without w. All D are those of the whole
model, each n-gram judged alone. P(h) is how often h occurs, where that is known, because the lower orders of Kneser–Ney are no
estimate of it (Chelba et al. 2010), else the model's own product over the history.
"""

from collections.abc import Callable, Sequence

import numpy as np

from refllm.models.back_off import LN10, Table, log10, score_rows

SMALLEST = 1e-300  # in place of 0, whose logarithm would make nan
Sizes = tuple[int, ...]  # how many n-grams of each order, from 1 up
Fits = Callable[[Sizes], bool]


def rows(table: Table, n: int) -> np.ndarray:
    """The tokens of every n-gram of an order: (n-grams, n)."""
    number, columns = np.arange(table.keys[n - 1].size), []
    for keys in reversed(table.keys[1:n]):
        number, word = np.divmod(keys[number], table.vocab_size)
        columns.append(word)
    return np.stack([number, *reversed(columns)], axis=1)


def renormalised(table: Table) -> Table:
    """The same n-grams with the weights that make the probabilities after every history sum to one."""
    weights: list[np.ndarray] = []
    for n in range(2, table.order + 1):
        known = table._replace(keys=table.keys[: n - 1], scores=table.scores[: n - 1], weights=tuple(weights))
        free, free_below = _unclaimed(table, n, _lower(known, rows(table, n)))
        b = np.where(free_below > 0, free / np.where(free_below > 0, free_below, 1), 1.0)
        weights.append(log10(b))
    return table._replace(weights=tuple(weights))


def _lower(table: Table, grams: np.ndarray) -> np.ndarray:
    """p(w | h′) of n-grams hw."""
    return 10 ** score_rows(table, grams[:, 1:]).astype(np.float64)


def _unclaimed(table: Table, n: int, lower: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each history of n − 1 tokens: 1 − Σ p(v|h) and 1 − Σ p(v|h′) over the n-grams hv."""
    history, n_histories = table.keys[n - 1] // table.vocab_size, table.keys[n - 2].size
    p = 10 ** table.scores[n - 1].astype(np.float64)
    # every other token is claimed by none: where all have an n-gram, both are 0 but for rounding
    n_open = table.vocab_size - (table.begin is not None) - np.bincount(history, minlength=n_histories)
    free = 1 - np.bincount(history, p, n_histories)
    free_below = 1 - np.bincount(history, lower, n_histories)
    return np.where(n_open > 0, np.maximum(free, 0), 0), np.where(n_open > 0, np.maximum(free_below, 0), 0)


def entropies(table: Table, occurrences: Sequence[np.ndarray] | None = None) -> list[np.ndarray]:
    """D of every n-gram of order 2 and above, in nats per token.

    occurrences: how often each n-gram of each order is in the text, as `Counts` has it, with order 1 for all ids
    """
    costs = []
    for n in range(2, table.order + 1):
        grams = rows(table, n)
        history = table.keys[n - 1] // table.vocab_size
        p, lower = 10 ** table.scores[n - 1].astype(np.float64), _lower(table, grams)
        free, free_below = _unclaimed(table, n, lower)
        b, after = _ratio(free, free_below), _ratio(free[history] + p, free_below[history] + lower)
        moved = np.where(p > 0, p * (_log(lower) + _log(after) - _log(p)), 0)
        shared = np.where(free[history] > 0, free[history] * (_log(after) - _log(b[history])), 0)
        costs.append(np.maximum(-_frequency(table, grams[:, :-1], history, occurrences) * (moved + shared), 0))
    return costs


def _frequency(table: Table, histories: np.ndarray, number: np.ndarray, occurrences: Sequence[np.ndarray] | None) -> np.ndarray:
    """P(h) for each n-gram's history."""
    if occurrences is not None:
        return occurrences[histories.shape[1] - 1][number] / max(float(occurrences[0].sum()), 1.0)
    log_p = np.zeros(len(histories))
    for n in range(1, histories.shape[1] + 1):
        log_p = log_p + np.where(histories[:, n - 1] == table.begin, _begin(table), score_rows(table, histories[:, :n]))
    return np.exp(log_p * LN10)


def _begin(table: Table) -> float:
    """log10 P of the token that begins sentences, which the model does not know: as often as the mean token."""
    return -float(np.log10(table.vocab_size))


def _ratio(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.maximum(a, SMALLEST) / np.maximum(b, SMALLEST)


def _log(x: np.ndarray) -> np.ndarray:
    return np.log(np.maximum(x, SMALLEST))


def ranked(table: Table, costs: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The n-grams above order 1, those to be kept longest first: their orders and their numbers.

    A history outlives what follows it, so any beginning of this list with order 1 is a table; of equals the shorter comes first.
    """
    lasting = [cost.copy() for cost in costs]
    for n in range(len(costs) - 1, 0, -1):
        np.maximum.at(lasting[n - 1], table.keys[n + 1] // table.vocab_size, lasting[n])
    orders = np.concatenate([np.full(cost.size, n) for n, cost in enumerate(lasting, start=2)] or [np.zeros(0, np.int64)])
    numbers = np.concatenate([np.arange(cost.size) for cost in lasting] or [np.zeros(0, np.int64)])
    falling = np.argsort(-np.concatenate([*lasting, np.zeros(0)]), kind="stable")
    return orders[falling], numbers[falling]


def pruned(table: Table, fits: Fits, occurrences: Sequence[np.ndarray] | None = None) -> Table:
    """The table with as many n-grams as fit, the others dropped by their D, and the weights made anew.

    Arguments and errors are those of `fitted` and `entropies`.
    """
    return table if fits(table.sizes) else renormalised(fitted(table, fits, entropies(table, occurrences)))


def fitted(table: Table, fits: Fits, costs: Sequence[np.ndarray]) -> Table:
    """The table with as many n-grams as fit, the others dropped, those of the least cost first; weights stay.

    fits: whether a table of these sizes does; once it does not, no larger one may    costs: of each n-gram of order 2 and above
    Raises ValueError where not even the tokens by themselves fit.
    """
    if fits(table.sizes):
        return table
    orders, numbers = ranked(table, costs)

    def sizes(kept: int) -> Sizes:
        return table.vocab_size, *np.bincount(orders[:kept], minlength=table.order + 1)[2:].tolist()

    if not fits(sizes(0)):
        raise ValueError(f"the {table.vocab_size} tokens alone are beyond the budget; raise it or make the vocabulary smaller.")
    kept, beyond = 0, orders.size
    while beyond - kept > 1:
        middle = (kept + beyond) // 2
        kept, beyond = (middle, beyond) if fits(sizes(middle)) else (kept, middle)
    masks = [np.zeros(keys.size, bool) for keys in table.keys[1:]]
    for n, mask in enumerate(masks, start=2):
        mask[numbers[:kept][orders[:kept] == n]] = True
    return only(table, masks)


def frequent(occurrences: Sequence[np.ndarray], least: Sequence[int]) -> list[np.ndarray]:
    """Which n-grams of order 2 and above occur often enough, for `only`.

    least: for order 2, 3 and so on the fewest occurrences to keep an n-gram, never falling; the last holds for higher orders too
    Raises ValueError where `least` falls or is empty.
    """
    if not least or any(a > b for a, b in zip(least, least[1:], strict=False)):
        raise ValueError(
            f"least={tuple(least)}; the fewest occurrences are one number or more that never fall from order to order."
        )
    wanted = [least[min(n, len(least) - 1)] for n in range(len(occurrences) - 1)]
    return [f >= few for f, few in zip(occurrences[1:], wanted, strict=True)]


def only(table: Table, masks: Sequence[np.ndarray]) -> Table:
    """The table with the n-grams of order 2 and above that the masks keep; a kept one's history must be kept. Weights stay."""
    keys, scores, weights = [table.keys[0]], [table.scores[0]], list(table.weights[:1])
    renumbered = table.keys[0]
    for n, mask in enumerate(masks, start=1):
        history, word = np.divmod(table.keys[n][mask], table.vocab_size)
        keys.append(renumbered[history] * table.vocab_size + word)
        scores.append(table.scores[n][mask])
        if n < table.order - 1:
            weights.append(table.weights[n][mask])
        renumbered = np.cumsum(mask) - 1
    return table._replace(keys=tuple(keys), scores=tuple(scores), weights=tuple(weights))


def only_numbers(numbers: Sequence[np.ndarray], masks: Sequence[np.ndarray]) -> list[np.ndarray]:
    """What `only` leaves of numbers of n-grams, order 1 whole."""
    return [numbers[0], *(x[mask] for x, mask in zip(numbers[1:], masks, strict=True))]


def dense(occurrences: Sequence[np.ndarray], first: np.ndarray, vocab_size: int) -> list[np.ndarray]:
    """Occurrences as `Counts` has them, with order 1 for all ids. first: the ids that occur"""
    every = np.zeros(vocab_size, np.int64)
    every[first] = occurrences[0]
    return [every, *occurrences[1:]]
