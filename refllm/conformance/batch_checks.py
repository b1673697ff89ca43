"""Continuous batching: rows join and leave at drawn steps, and each one's logits are those of its full forward pass alone."""

from hypothesis import assume
from hypothesis import strategies as st

from refllm.array_api import Backend
from refllm.decoding.batch import Batch, Newcomer
from refllm.decoding.cache import new_cache
from refllm.decoding.generate import prefill
from refllm.models import architecture
from refllm.models.model import Model

from . import bounded
from .check import Check
from .model_checks import MODELS, decided, parameters
from .strategies import integers


@st.composite
def _arrivals(draw):
    """A model, and for some rows their tokens, how many of these are the prompt, and before which step they come."""
    name = draw(st.sampled_from(list(MODELS)))
    config = draw(MODELS[name])
    params, rows = draw(parameters(name, config)), []
    for _ in range(draw(st.integers(1, 3))):
        n_prompt, n_more = draw(st.integers(1, 4)), draw(st.integers(1, 4))
        rows.append((draw(integers((1, n_prompt + n_more), 0, config.vocab_size)), n_prompt, draw(st.integers(0, 5))))
        assume(decided(name, config, params, rows[-1][0]))
    return name, config, params, tuple(rows)


def _compute(backend: Backend, drawn):
    name, config, params, rows = drawn
    model = Model(architecture(name), config, params)
    found = _alone(model, rows) if backend is bounded.backend else _together(model, rows)
    return {f"row {r}": logits for r, logits in enumerate(found)}


def _alone(model: Model, rows) -> list:
    """The logits (n, V) after each row's prompt, and after each of its other tokens."""
    return [model.logits(tokens)[0, n_prompt - 1 :, :] for tokens, n_prompt, _ in rows]


def _together(model: Model, rows) -> list:
    """The same from a batch that reads each row's tokens one a step, from the step on at which it comes."""
    xp, batch, step = model.backend.xp, Batch[int](model, model.config.max_positions), 0
    found: list[list] = [[] for _ in rows]
    read = [n_prompt for _, n_prompt, _ in rows]
    lengths = [tokens.shape[1] for tokens, _, _ in rows]
    while any(read[r] < lengths[r] for r in range(len(rows))):
        newcomers = []
        for r, (tokens, n_prompt, comes) in enumerate(rows):
            if comes == step:
                logits, cache = prefill(model, tokens[:, :n_prompt], new_cache(model, 1, n_prompt))
                found[r].append(logits)
                newcomers.append(Newcomer(r, cache, tokens[:, n_prompt]))
        batch.change([b for b, r in enumerate(batch.rows) if read[r] == lengths[r]], newcomers)
        step += 1
        if not batch.rows:
            continue
        batch.tokens = xp.concat([rows[r][0][:, read[r]] for r in batch.rows], axis=0)
        logits = batch.step()
        for b, r in enumerate(batch.rows):
            found[r].append(logits[b : b + 1, :])
            read[r] += 1
    return [xp.concat(each, axis=0) for each in found]


CHECKS = [Check("continuous batching", "decoding", _arrivals(), _compute, halves=False, whole=True)]
