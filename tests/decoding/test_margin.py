"""The margin of a decision: never too large, for every sampler, and exact where there are no cuts."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.array_api import load
from refllm.conformance.specification import definitions
from refllm.decoding.margin import margin, sampling_slack
from refllm.decoding.memory import remember
from refllm.decoding.sampler import Sampler
from refllm.decoding.sampling import adjusted, distribution, sample

NUMPY = load("numpy").xp
SEEDS = st.integers(0, 2**32 - 1)
CUTS = [{}, {"top_k": 1}, {"top_k": 3}, {"top_k": 50}, {"top_p": 0.3}, {"top_p": 0.9}, {"min_p": 0.1}, {"min_p": 1.0}]
CUTS += [{"typical_p": 0.2}, {"typical_p": 0.9}, {"epsilon": 0.05}, {"eta": 0.1}, {"mirostat": (2.0, 0.1)}]
CUTS += [{"top_k": 5, "top_p": 0.8, "min_p": 0.05, "typical_p": 0.9, "epsilon": 0.02, "eta": 0.02}]
PENALTIES = [{}, {}, {"repetition_penalty": 1.5, "presence_penalty": -0.5, "frequency_penalty": 0.25, "no_repeat_ngram": 2}]


@st.composite
def samplers(draw):
    """Any sampler but the greedy."""
    temperature = draw(st.sampled_from([0.3, 1.0, 2.5]))
    if draw(st.integers(0, 9)) == 0:
        return Sampler(temperature, top_p=draw(st.sampled_from([None, 0.5, 0.95])), draws="llama2.c")
    return Sampler(temperature, **draw(st.sampled_from(CUTS)), **draw(st.sampled_from(PENALTIES)))


class Decision:
    """One step: logits, the uniform, and what the sampler remembers and may choose."""

    def __init__(self, seed, sampler):
        rng = np.random.default_rng(seed)
        V = int(rng.integers(1, 30))
        self.sampler, self.uniform = sampler, np.float32(rng.random())
        self.logits = rng.normal(0, 2, V)
        self.memory = remember(sampler, rng.integers(0, V, (1, 6), dtype=np.int32), None, NUMPY, V)
        self.allowed = None if rng.random() < 0.7 else (rng.random(V) < 0.7) | (np.arange(V) == 0)

    def token(self, move=0.0):
        allowed = None if self.allowed is None else self.allowed[None, :]
        return int(sample((self.logits + move)[None, :], self.uniform[None], self.sampler, self.memory, allowed)[0][0])

    def margin(self, slack=0.0):
        return margin(self.logits, self.uniform, self.sampler, self.memory, self.allowed, slack)

    def directions(self, rng):
        """The worst for a plain draw and a greedy choice, and some at random: rows of −1 and 1."""
        ids, token = np.arange(len(self.logits)), self.token()
        worst = [ids < token, ids > token, ids <= token, ids >= token, ids == token, ids != token]
        return [np.where(up, 1.0, -1.0) for up in (*worst, *(rng.random((12, len(ids))) < 0.5))]


@given(st.one_of(samplers(), st.just(Sampler(0.0)), st.just(Sampler(0.0, repetition_penalty=2.0))), SEEDS)
def test_a_move_within_the_margin_changes_no_token(sampler, seed):
    decision, rng = Decision(seed, sampler), np.random.default_rng(seed + 1)
    d = min(decision.margin(), 1e3) * (1 - 1e-9)
    for direction in decision.directions(rng):
        for part in (1.0, rng.random(len(direction))):
            assert decision.token(direction * part * d) == decision.token()


@given(st.sampled_from([Sampler(0.0), Sampler(1.0), Sampler(0.5), Sampler(3.0)]), SEEDS)
def test_a_plain_choice_changes_just_beyond_its_margin(sampler, seed):
    decision = Decision(seed, sampler)
    d = decision.margin() * (1 + 1e-6) + 1e-12
    if np.isfinite(d):
        directions = decision.directions(np.random.default_rng(0))
        assert any(decision.token(direction * d) != decision.token() for direction in directions)
    else:
        assert (decision.logits.size if decision.allowed is None else np.sum(decision.allowed)) == 1


@given(st.sampled_from([0.0, 0.25, 1.0, 2.0]), SEEDS)
def test_the_margin_of_a_plain_choice_is_its_formula(temperature, seed):
    decision = Decision(seed, Sampler(temperature))
    logits = decision.logits.tolist()
    if temperature == 0:
        expected = definitions()["greedy_margin"](logits)
    else:
        expected = definitions()["draw_margin"](logits, float(decision.uniform), temperature)
    found = margin(decision.logits, decision.uniform, decision.sampler)
    assert found == expected or abs(found - expected) <= 1e-9 * expected


@given(st.sampled_from([0.5, 1.0, 2.0]), SEEDS)
def test_slack_is_a_shift_of_the_uniform(temperature, seed):
    decision, slack = Decision(seed, Sampler(temperature)), 0.01
    u, tokens, margins = np.float64(decision.uniform), set(), []
    for shifted in (u - slack, u + slack):
        decision.uniform = np.clip(shifted, 0, 1 - 2.0**-53)
        tokens.add(decision.token())
        margins.append(decision.margin())
    decision.uniform = u
    if slack < u < 1 - slack:
        expected = min(margins) if len(tokens) == 1 else 0
        assert abs(decision.margin(slack) - expected) <= 1e-9 * max(1.0, expected) or expected == np.inf


def test_the_slack_of_float32_is_that_of_its_sums():
    """Uniforms at boundaries, where a sum in float32 decides otherwise here and there."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (300, 50)).astype(np.float32)
    p = distribution(np.float64(logits), Sampler(1.0))
    edges = np.cumsum(p, axis=1)[np.arange(300), rng.integers(0, 49, 300)]
    at = np.clip(edges, 0, 1 - 2.0**-24).astype(np.float32)
    found, right = (sample(z, at, Sampler(1.0))[0] for z in (logits, np.float64(logits)))
    parted = np.flatnonzero(found != right)
    assert len(parted) > 5
    for b in parted:
        row = np.float64(logits[b])
        assert margin(row, at[b], Sampler(1.0), slack=sampling_slack(row, Sampler(1.0))) == 0


@pytest.mark.parametrize("cut", CUTS)
def test_a_cut_leaves_most_of_the_margin(cut):
    """A bound of zero would keep the law and be of no use."""
    found = [Decision(seed, Sampler(1.0, **cut)) for seed in range(20)]
    positive = [decision for decision in found if decision.margin() > 0]
    assert len(positive) == len(found)
    changed = 0
    for decision in positive:
        d = min(decision.margin(), 1e3) * 6
        changed += any(decision.token(x * d) != decision.token() for x in decision.directions(np.random.default_rng(0)))
    assert changed >= 12 or cut in ({"top_k": 1}, {"min_p": 1.0})


def test_a_tie_has_no_margin_and_a_token_without_rival_has_no_end_of_it():
    assert margin(np.asarray([1.0, 2.0, 2.0]), 0.5, Sampler(0.0)) == 0
    assert margin(np.asarray([0.0, 0.0]), 0.5, Sampler(1.0)) == 0
    assert margin(np.asarray([0.0, 0.0]), 0.9, Sampler(1.0, top_k=1)) == 0
    assert margin(np.asarray([3.0]), 0.5, Sampler(1.0)) == np.inf
    for sampler in (Sampler(0.0), Sampler(1.0, top_p=0.5)):
        assert margin(np.asarray([1.0, 2.0]), 0.5, sampler, allowed=np.asarray([True, False])) == np.inf


def test_logits_that_are_no_numbers_have_no_margin():
    with pytest.raises(ValueError, match="not finite numbers"):
        margin(np.asarray([1.0, np.nan]), 0.5, Sampler(1.0))


@given(samplers(), SEEDS)
def test_every_backend_chooses_alike_where_the_margin_allows_for_its_rounding(backend, sampler, seed):
    xp, decision = backend.xp, Decision(seed, sampler)
    decision.logits = np.float64(np.float32(decision.logits))
    rows = [None if x is None else xp.from_numpy(x) for x in decision.memory or ()]
    memory = type(decision.memory)(*rows) if rows else None
    allowed = None if decision.allowed is None else xp.from_numpy(decision.allowed[None, :])
    logits = xp.from_numpy(np.float32(decision.logits)[None, :])
    found = xp.to_numpy(sample(logits, xp.from_numpy(decision.uniform[None]), sampler, memory, allowed)[0])
    scores = adjusted(decision.logits[None, :], sampler, decision.memory, None)[0]
    rounding = 4 * 2.0**-23 * np.max(np.abs(scores))
    assert int(found[0]) == decision.token() or decision.margin(sampling_slack(scores, sampler)) <= rounding
