"""Decoding to time: ours, a plain loop in torch with a cache made once, and transformers' `generate`. All are greedy."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from refllm.array_api import generator
from refllm.bench.calls import Call
from refllm.bench.shapes import SEED, Shape
from refllm.bench.side import Side
from refllm.models import architecture
from refllm.models.model import Model

Generate = Callable[[np.ndarray, int], tuple[list[int], list[float]]]
# (prompts (B, T) int64, n) -> the first row's n tokens, and the seconds of each step, the first one's with the prompt


def prompt(call: Call, shape: Shape) -> np.ndarray:
    """Random tokens: (B, T) int64."""
    return generator(SEED, "bench").integers(0, shape.config.vocab_size, (call.rows, call.context), dtype=np.int64)


def timed_decoding(generate: Generate, shape: Shape, calls: list[Call], figures: Callable[[], dict[str, float]] = dict) -> Side:
    """A side that decodes."""

    def first():
        tokens = [generate(prompt(call, shape), call.tokens)[0] for call in calls]
        return {"tokens": tokens[0], "first_tokens": " ".join(str(chosen[0]) for chosen in tokens)}  # a string: all must agree

    def run():
        found = {}
        for call in calls:
            _, seconds = generate(prompt(call, shape), call.tokens)
            if call.prompt:
                found[call.prompt] = seconds[0]
            if call.token:
                found[call.token] = sum(seconds[1:]) / (len(seconds) - 1) / call.rows
        return found

    return Side(first, run, figures)


def our_model(shape: Shape) -> Model:
    return Model.initialise(shape.architecture, shape.config, SEED)


def ours(model: Model) -> Generate:
    from refllm.decoding import Sampler, generate

    greedy = Sampler(temperature=0)

    def tokens(prompts, n):
        steps = list(generate(model, prompts.tolist(), n, greedy, SEED))
        return [int(step.tokens[0]) for step in steps], [step.seconds for step in steps]

    return tokens


def torchs(shape: Shape) -> Generate:
    import torch

    from refllm.bench import torch_peer

    model = torch_peer.build(shape.architecture, shape.config, architecture(shape.architecture).initialise(shape.config, SEED))

    @torch.inference_mode()
    def tokens(prompts, n):
        tokens, seconds, began = [], [], time.perf_counter()
        B, T = prompts.shape
        caches = torch_peer.new_caches(shape.config, T + n, B)
        given, start = torch.from_numpy(prompts), 0
        for _ in range(n):
            logits = model(given, caches, start)
            start += given.shape[1]
            given = logits.argmax(-1, keepdim=True)
            tokens.append(int(given[0]))
            now = time.perf_counter()
            seconds.append(now - began)
            began = now
        return tokens, seconds

    return tokens


def transformers(shape: Shape) -> Generate:
    from refllm.bench import transformers_peer

    model = transformers_peer.build(
        shape.architecture, shape.config, architecture(shape.architecture).initialise(shape.config, SEED)
    )
    return lambda prompts, n: transformers_peer.generate(model, prompts, n)


GENERATES: dict[str, Callable[[Shape], Generate]] = {
    "refllm": lambda shape: ours(our_model(shape)),
    "torch": torchs,
    "transformers": transformers,
}


def prepare(library: str, shape: Shape, calls: list[list[Any]]) -> Side:
    """The side of a library. calls: fields of Calls, as they came through JSON"""
    asked = [Call(*call) for call in calls]
    if library != "refllm":
        return timed_decoding(GENERATES[library](shape), shape, asked)
    model = our_model(shape)
    return timed_decoding(ours(model), shape, asked, lambda: floors(model, asked))


def floors(model: Model, calls: list[Call]) -> dict[str, float]:
    """The least milliseconds that what is timed can take here, by name; a token's halfway through its call."""
    from refllm.bench.floor import prefill_floor, token_floor

    found = {f"floor in ms, {c.prompt}": c.rows * prefill_floor(model, c.context).seconds for c in calls if c.prompt}
    for call in calls:
        if call.token:
            length = call.context + call.tokens // 2
            found[f"floor in ms, {call.token}"] = token_floor(model, length, call.rows).seconds / call.rows
    return {name: 1e3 * seconds for name, seconds in found.items()}
