"""llama2.c's generator and draws, against numbers and texts that its C program wrote."""

import numpy as np
import pytest

from refllm import checkpoints
from refllm.array_api import load
from refllm.conformance.specification import definitions
from refllm.decoding import Sampler, generate, sample
from refllm.decoding.llama2c_random import distribution, draw, number
from refllm.decoding.sampling import uniforms

BOS = 1
# What run.c wrote with the model stories260K, gcc -O3 on x86-64, from the empty prompt: (seed, temperature, top-p), token ids
TEXTS = {
    (42, 1.0, 0.9): "403 407 261 378 432 383 286 261 376 298 315 421 395 317 426 338 401 396 267 337 410 408 419 292 411 322 "
    "265 262 379 426 385 328 432 311 357 261 419 355 311",
    (7, 0.8, 1.0): "403 407 261 378 432 383 286 261 376 298 315 421 395 317 426 338 401 396 267 337 335 311 267 422 419 261 "
    "306 328 278 289 428 426 385 262 379 416 422 328 432",
    (12345, 1.5, 0.95): "385 328 432 383 286 261 358 411 464 412 341 272 412 315 426 291 358 421 429 287 285 284 316 263 415 414 "
    "272 411 421 413 399 280 425 325 277 419 261 430 408",
    (1, 0.6, 0.5): "403 407 261 378 432 383 286 261 376 298 315 421 395 317 426 338 401 396 267 337 410 408 419 292 411 322 "
    "265 282 295 433 426 385 328 432 358 394 261 370 432",
}


@pytest.mark.parametrize(("seed", "temperature", "top_p"), TEXTS)
def test_texts_of_run_c_come_out_token_by_token(data, backend, seed, temperature, top_p):
    model = checkpoints.load(data / "stories260K.bin", backend)
    written = [int(token) for token in TEXTS[seed, temperature, top_p].split()]
    sampler = Sampler(temperature, top_p=top_p, draws="llama2.c")
    assert [int(step.tokens[0]) for step in generate(model, [BOS], len(written), sampler, seed)] == written


def test_the_generator_gives_the_numbers_of_the_c_program():
    printed = {  # random_f32 · 2²⁴ from each seed
        1: [4711630, 11259814, 12177677, 5092376, 942489],
        42: [5688906, 13124075, 13256299, 15838407, 12824397],
        123456789: [15581379, 8295156, 4763359, 2139863, 10450225],
        2**64 - 1: [16329929, 9434244, 3435669, 12932812, 7089509],
    }
    for seed, numbers in printed.items():
        assert [number(seed, step) * 2**24 for step in range(5)] == numbers
    assert number(42, 1000) * 2**24 == 7514011


def test_every_step_is_one_step_after_the_last():
    for seed in (1, 2**63, 987654321):
        assert [number(seed, step) for step in range(70)] == definitions()["llama2c_numbers"](seed, 70)


def test_a_seed_that_the_generator_cannot_leave_is_refused():
    for seed in (0, -1, 2**64):
        with pytest.raises(ValueError, match=f"seed={seed} cannot seed llama2.c's generator; it must be from 1 to 2"):
            number(seed, 0)


def test_a_row_draws_with_the_seed_of_its_own():
    together = uniforms(5, 3, 4, "llama2.c")
    assert together.dtype == np.float32
    assert together.tolist() == [number(5 + row, 3) for row in range(4)]


def test_after_a_top_p_the_likeliest_tokens_come_first(backend):
    xp = backend.xp
    p = np.array([[0.1, 0.5, 0.05, 0.35]] * 5)
    numbers = np.array([0, 0.5 / 0.85 - 0.01, 0.5 / 0.85 + 0.01, 0.99, 0.999999], np.float32)
    logits, u = xp.from_numpy(np.log(p).astype(np.float32)), xp.from_numpy(numbers)
    assert xp.to_numpy(draw(logits, u, 1.0, 0.8)).tolist() == [1, 1, 3, 3, 3]
    assert xp.to_numpy(draw(logits, u, 1.0, None)).tolist() == [0, 1, 1, 3, 3]
    assert xp.to_numpy(draw(logits, u, 1.0, 0.01)).tolist() == [1] * 5  # nothing reaches its prefilter
    expected = [0, 0.5 / 0.85, 0, 0.35 / 0.85]
    assert np.all(np.abs(xp.to_numpy(distribution(logits, 1.0, 0.8)) - expected) <= 1e-6)
    flat = xp.from_numpy(np.zeros((1, 4), np.float32))
    assert xp.to_numpy(draw(flat, u[:1], 1.0, 0.001)).tolist() == [0]


def test_a_uniform_that_rounds_to_one_draws_the_last_that_may_come(backend):
    xp = backend.xp
    logits = xp.from_numpy(
        np.log(np.array([[0.1, 0.5, 0.1, 0.3, 1e-30]])).astype(np.float32) - np.array([[0, 0, 0, 0, np.inf]], np.float32)
    )
    one = xp.from_numpy(np.array([1.0], np.float32))
    assert xp.to_numpy(draw(logits, one, 1.0, 0.7)).tolist() == [3]
    assert xp.to_numpy(draw(logits, one, 1.0, None)).tolist() == [3]


def test_forbidden_tokens_are_never_drawn(backend):
    xp, sampler = backend.xp, Sampler(0.9, top_p=0.9, draws="llama2.c")
    logits = xp.from_numpy(np.random.default_rng(0).normal(0, 1, (64, 9)).astype(np.float32))
    allowed = np.random.default_rng(1).random((64, 9)) < 0.3
    allowed[:, 2] = True
    numbers = np.concatenate([uniforms(1, 0, 60, "llama2.c"), np.full(4, 1 - 2.0**-24, np.float32)])
    for how in (sampler, Sampler(0.9, draws="llama2.c")):
        tokens = xp.to_numpy(sample(logits, xp.from_numpy(numbers), how, None, xp.from_numpy(allowed))[0])
        assert np.all(allowed[np.arange(64), tokens])


def test_greedy_texts_need_no_numbers():
    logits = load("numpy").xp.from_numpy(np.array([[0, 2, 1]], np.float32))
    assert sample(logits, np.array([0.9], np.float32), Sampler(0, draws="llama2.c"))[0].tolist() == [1]
