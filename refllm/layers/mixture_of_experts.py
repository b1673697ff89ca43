"""A mixture of experts (Shazeer 2017, arXiv:1701.06538; as in Mixtral: Jiang 2024, arXiv:2401.04088, section 2.1), and the
loss that spreads the positions over them (Fedus 2021, arXiv:2101.03961, equations 4 to 6).

chosen = the k experts of the largest logits          w = softmax(logits[chosen])
y = Σ_k w_k · swiglu(x, expert chosen_k)              loss = E · Σ_E f_e · P_e

f_e: how often a position chooses expert e            P_e: the mean over positions of softmax(logits)_e

Positions are gathered by expert into blocks of one fixed size, filled up with zeros, and every block meets the matrices of its
expert. So the cost follows the experts chosen, not those there are; all shapes are known before the choice is, so the host waits
for nothing; and an expert's blocks fill in the order of time, so a later position changes no bit of an earlier one's answer.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

from refllm.array_api import namespace, op
from refllm.layers.linear import rows
from refllm.layers.precision import narrow, widen
from refllm.layers.softmax import softmax, softmax_backward
from refllm.layers.swiglu import silu, silu_backward

LEAST = 8  # rows of a block, where there are as many positions: reading an expert's matrices costs as much as a few rows
SHARE = 4  # blocks that an expert fills on average, where there are many positions: zeros then add a quarter at most


@op
def mixture_of_experts(x, logits, gate, up, down, top_k):
    """Send every position through the experts that its router prefers, and mix their answers.

    x: (..., D)    logits: (..., E), the router's    gate: (E, D, F)    up: (E, D, F)    down: (E, F, D)
    top_k: how many experts each position chooses; of equal logits, the lower expert
    Returns y: (..., D) and what the backward pass needs.
    """
    xp = namespace(x)
    scores = by_time(logits)  # (N, E)
    chosen = top_experts(scores, top_k)  # (N, k)
    weights, weighed = softmax(widen(xp.take_along_axis(scores, chosen, axis=-1)))  # (N, k)
    groups = grouped_by_expert(chosen, gate.shape[0])
    h = with_zeros(by_time(widen(x)))  # (N + 1, D)
    answers, kept = [], []
    for slots, matrices in experts_at_work(groups, gate, up, down):
        answer, saved = expert(xp.take(h, groups.sources[slots] // top_k, axis=0), *matrices)
        answers.append(answer)
        kept.append(saved)
    picked = xp.reshape(xp.take(xp.concat(answers), groups.slots, axis=0), (*chosen.shape, x.shape[-1]))  # (N, k, D)
    y = xp.sum(weights[..., None] * picked, axis=1)
    return narrow(by_place(y, x.shape), x), (x, logits, gate, up, down, chosen, weights, weighed, picked, groups, kept)


@op
def mixture_of_experts_backward(dy, saved):
    """Return dx: (..., D), dlogits: (..., E), dgate: (E, D, F), dup: (E, D, F) and ddown: (E, F, D), given dy: (..., D).

    y = Σ_k w_k a_k, hence   da_k = w_k dy   goes back through expert k, and   dw_k = Σ_D dy·a_k   through the softmax to the
    chosen logits. The choice is constant around logits that differ: experts and logits not chosen get zero.
    """
    xp = namespace(dy)
    x, logits, gate, up, down, chosen, weights, weighed, picked, groups, kept = saved
    (N, top_k), E = chosen.shape, gate.shape[0]
    dh = by_time(widen(dy))[:, None, :]  # (N, 1, D)
    dscores = softmax_backward(xp.sum(dh * picked, axis=-1), weighed)  # (N, k)
    dlogits = xp.sum(xp.where(is_expert(chosen, E), dscores[..., None], 0.0), axis=1)
    danswers = with_zeros(rows(weights[..., None] * dh))  # (N·k + 1, D)
    dpositions, dmatrices = [], []
    for (slots, matrices), saved_block in zip(experts_at_work(groups, gate, up, down), kept, strict=True):
        dposition, *d = expert_backward(xp.take(danswers, groups.sources[slots], axis=0), *matrices, saved_block)
        dpositions.append(dposition)
        dmatrices.append(d)
    dpicked = xp.take(xp.concat(dpositions), groups.slots, axis=0)  # (N·k, D)
    dx = by_place(xp.sum(xp.reshape(dpicked, (N, top_k, -1)), axis=1), x.shape)
    dgate, dup, ddown = (
        xp.scatter_add(xp.zeros_like(weight), groups.experts, xp.stack(d))
        for weight, d in zip((gate, up, down), zip(*dmatrices, strict=True), strict=True)
    )
    return narrow(dx, x), narrow(by_place(dlogits, logits.shape), logits), dgate, dup, ddown


@op
def load_balancing_loss(logits, valid, top_k):
    """Measure how unevenly positions spread over the experts: top_k if evenly, up to E if all choose alike.

    logits: (..., E), the router's    valid: (...) bool, False for positions that do not count; or None, all do
    top_k: how many experts each position chooses
    Returns loss: () and what the backward pass needs.
    """
    xp = namespace(logits)
    z = rows(widen(logits))  # (N, E)
    counts = xp.ones_like(z[:, :1]) if valid is None else xp.astype(xp.reshape(valid, (-1, 1)), z.dtype)  # (N, 1)
    n, E = xp.maximum(xp.sum(counts), 1.0), z.shape[-1]
    hits = xp.any(is_expert(top_experts(z, top_k), E), axis=1)
    frequency = xp.sum(xp.astype(hits, z.dtype) * counts, axis=0) / n  # (E,)
    p, weighed = softmax(z)
    share = frequency * (E * counts / n)  # (N, E): the loss is Σ p · share
    return xp.asarray(xp.sum(p * share), dtype=logits.dtype), (logits, weighed, share)


@op
def load_balancing_loss_backward(dloss, saved):
    """Return dlogits: (..., E), given dloss: ().

    Frequencies are counts, so constant wherever no logits are equal: only the probabilities P pass a gradient.
    """
    xp = namespace(dloss)
    logits, weighed, share = saved
    return narrow(xp.reshape(softmax_backward(widen(dloss) * share, weighed), logits.shape), logits)


def top_experts(logits, top_k: int):
    """The experts of the largest logits, (N, k), in falling order, of equal ones the lower first. logits: (N, E)"""
    xp = namespace(logits)
    return xp.astype(xp.argsort(logits, axis=-1, descending=True, stable=True)[:, :top_k], xp.int32)


def is_expert(chosen, n_experts: int):
    """chosen: (N, k) -> (N, k, E), whether each choice is of that expert."""
    return chosen[..., None] == namespace(chosen).arange(n_experts, dtype=chosen.dtype)


class Groups(NamedTuple):
    """Which choices meet in which block. A choice is a position's k-th: the number n·top_k + k, for positions counted by time."""

    sources: Any  # (S,) the choice in each slot, N·k where there is none
    slots: Any  # (N·k,) the slot of each choice
    experts: Any  # (blocks,) the expert of each block
    size: int  # slots of a block


def grouped_by_expert(chosen, n_experts: int) -> Groups:
    """Give every choice a slot in a block of its expert, the earlier positions first. chosen: (N, k)"""
    xp = namespace(chosen)
    N, n = chosen.shape[0], chosen.shape[0] * chosen.shape[1]
    size = min(N, max(LEAST, -(-n // (SHARE * n_experts))))  # no position chooses an expert twice
    n_blocks = (n + min(n, n_experts) * (size - 1)) // size  # what the least even choice needs

    def whole(x):
        return xp.astype(x, xp.int32)

    flat = xp.reshape(chosen, (-1,))
    order = whole(xp.argsort(flat, stable=True))  # choices by expert
    ordered = xp.take(flat, order, axis=0)
    ids = xp.arange(n_experts, dtype=xp.int32)
    begin = whole(xp.searchsorted(ordered, ids))  # (E,)
    count = whole(xp.searchsorted(ordered, ids, side="right")) - begin
    blocks = (count + (size - 1)) // size
    end = whole(xp.cumulative_sum(blocks))
    first = (end - blocks) * size  # (E,) the first slot of each expert
    slots = xp.take(first - begin, ordered, axis=0) + xp.arange(n, dtype=xp.int32)  # of the choices by expert
    numbers = xp.arange(n_blocks, dtype=xp.int32)
    experts = xp.minimum(whole(xp.searchsorted(end, numbers, side="right")), ordered[n - 1 :])  # a block too many: the last again
    owner = xp.repeat(experts, size)  # (S,)
    rank = xp.arange(n_blocks * size, dtype=xp.int32) - xp.take(first, owner, axis=0)
    taken = rank < xp.take(count, owner, axis=0)
    sources = xp.take(order, xp.where(taken, xp.take(begin, owner, axis=0) + rank, 0), axis=0)
    return Groups(xp.where(taken, sources, n), xp.take(slots, whole(xp.argsort(order)), axis=0), experts, size)


def experts_at_work(groups: Groups, *weights) -> Iterator[tuple[slice, list]]:
    """For every block, its slots and the matrices of its expert, copied one block at a time. weights: (E, …) each"""
    xp = namespace(groups.experts)
    for i in range(groups.experts.shape[0]):
        matrices = [xp.take(weight, groups.experts[i : i + 1], axis=0)[0, ...] for weight in weights]
        yield slice(i * groups.size, (i + 1) * groups.size), matrices


def expert(x, gate, up, down):
    """x: (block, D) -> (block, D), and what backward needs besides the matrices: SwiGLU, in float32 at least."""
    xp = namespace(x)
    s, silu_saved = silu(xp.matmul(x, widen(gate)))  # (block, F)
    b = xp.matmul(x, widen(up))
    return xp.matmul(s * b, widen(down)), (x, silu_saved, s, b)


def expert_backward(dy, gate, up, down, saved):
    """Return dx: (block, D), dgate: (D, F), dup: (D, F) and ddown: (F, D)."""
    xp = namespace(dy)
    x, silu_saved, s, b = saved

    def transposed(a):
        return xp.matrix_transpose(widen(a))

    dh = xp.matmul(dy, transposed(down))
    da, db = silu_backward(dh * b, silu_saved), dh * s
    dx = xp.matmul(da, transposed(gate)) + xp.matmul(db, transposed(up))
    return dx, xp.matmul(transposed(x), da), xp.matmul(transposed(x), db), xp.matmul(transposed(s * b), dy)


def by_time(x):
    """x: (..., T, D) -> (N, D), the positions of all rows at time 0, then those at time 1, …"""
    if x.ndim < 3:
        return rows(x)
    xp = namespace(x)
    return rows(xp.permute_dims(xp.reshape(x, (-1, *x.shape[-2:])), (1, 0, 2)))


def by_place(y, shape: tuple[int, ...]):
    """y: (N, D) by time -> (..., T, D) of a shape, the inverse of by_time and so its gradient too."""
    xp = namespace(y)
    if len(shape) < 3:
        return xp.reshape(y, shape)
    return xp.reshape(xp.permute_dims(xp.reshape(y, (shape[-2], -1, shape[-1])), (1, 0, 2)), shape)


def with_zeros(x):
    """x: (N, D) -> (N + 1, D), with a row of zeros at the end for slots that hold nothing."""
    xp = namespace(x)
    return xp.concat([x, xp.zeros_like(x[:1, :])])
