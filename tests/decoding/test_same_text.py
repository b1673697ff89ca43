"""The same seed writes the same text on every backend, kernels on and off, up to a decision nearer than the error bound."""

import pytest

from refllm import checkpoints
from refllm.array_api import kernels, load
from refllm.conformance.bounded import FLOATS, Bounded
from refllm.conformance.decisions import choices, judged, nearest
from refllm.conformance.kit import run
from refllm.conformance.text_checks import CHECKS
from refllm.conformance.text_difference import LOGITS, exact
from refllm.decoding import Sampler
from refllm.decoding.request import Request
from refllm.decoding.serve import serve

PROMPT = [1, 403, 407, 261, 378]  # "Once upon a time" in the vocabulary of 512 tokens, behind the token that begins a text
ASKED = [
    (Sampler(0.0), 0),
    (Sampler(1.0), 1),
    (Sampler(1.0, top_p=0.9), 2),
    (Sampler(0.9, min_p=0.02, repetition_penalty=1.1), 3),
    (Sampler(1.0, top_p=0.9, draws="llama2.c"), 4),
]
N_TOKENS = 200


def tables(backend):
    """The kernels to put in force one after the other: none, and a backend's own where it has some."""
    return [{}, backend.kernels] if backend.kernels else [{}]


def texts(model):
    """All that is asked, written side by side: a list of tokens for each."""
    found: list[list[int]] = [[] for _ in ASKED]
    requests = [Request(PROMPT, N_TOKENS, sampler, seed) for sampler, seed in ASKED]
    for event in serve(model, requests, len(requests), room=len(PROMPT) + N_TOKENS):
        found[event.request].append(event.token)
    return found


@pytest.fixture(scope="module")
def stories(data):
    """A function from a backend and a dtype to a trained model of 260 thousand parameters there."""
    return lambda backend, dtype="float32": checkpoints.load(data / "stories260K.bin", backend, dtype)


@pytest.fixture(scope="module")
def expected(stories):
    """The texts that NumPy writes in float64."""
    numpy = load("numpy")
    with kernels(numpy, {}):
        return texts(stories("numpy", "float64"))


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name.partition(":")[0])
def test_every_backend_writes_the_same_text_up_to_the_margin_of_a_decision(check, backend):
    for table in tables(backend):
        row = run(check, backend, plain=not table, examples=2)  # many more are those of tests/conformance
        assert not row.failure


def test_a_trained_model_tells_the_same_stories_on_every_backend(stories, expected, backend):
    for table in tables(backend):
        with kernels(backend, table):
            found = texts(stories(backend))
        for (sampler, seed), ours, theirs in zip(ASKED, found, expected, strict=True):
            assert len(ours) == N_TOKENS
            if ours != theirs:  # which only a decision nearer than the bound excuses
                assert decision_where_they_part(stories("numpy"), ours, theirs, sampler, seed).is_near


def decision_where_they_part(model, ours, theirs, sampler, seed):
    """The oracle's judgement of the first step at which two texts differ."""
    step = next(i for i, (a, b) in enumerate(zip(ours, theirs, strict=True)) if a != b)
    logits = exact(model, PROMPT + theirs[:step], "float32")[LOGITS][len(PROMPT) - 1 :, :]
    *_, choice = choices(logits.value, PROMPT, theirs, sampler, seed)
    return judged(choice, logits, sampler)


def test_the_stories_hold_near_decisions_so_equal_texts_are_no_accident(stories, expected, record_property):
    margins = []
    for (sampler, seed), text in zip(ASKED, expected, strict=True):
        with kernels(load("numpy"), {}):
            logits = stories("numpy", "float64").logits([PROMPT + text[:-1]])[0, len(PROMPT) - 1 :]
        found = list(choices(logits, PROMPT, text, sampler, seed))
        assert [choice.token for choice in found] == text
        margins.append(nearest(found, Bounded(logits, None, FLOATS["float32"]), sampler).margin)
    told = f"smallest margins of {len(margins)} stories: {', '.join(f'{m:.2g}' for m in margins)} nats"
    record_property("margins", told)
    print(told)
    assert 0 < min(margins) < 0.01, told
