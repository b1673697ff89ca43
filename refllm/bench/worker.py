"""One side of a comparison, in a process of its own: `python -m refllm.bench.worker '{"library": …}'`.

It answers requests on stdin, one line of JSON each, on stdout. A process of its own gives each side its own threads and its own
peak of memory, and lets the caller drive the sides in turn.

    "first"  the first step, untimed: what both sides must agree on
    "run"    one timed run: seconds by name
    "memory" bytes: the peak since "first", and what was resident when the libraries had been imported
"""

import importlib.metadata
import json
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from refllm.array_api import generator, load
from refllm.bench import memory
from refllm.bench.shapes import BETAS, CLIP, DECODING, EPS, LEARNING_RATE, SEED, TRAINING, WEIGHT_DECAY, Shape
from refllm.models import architecture


class Side(NamedTuple):
    """How one side works. Both return numbers by name."""

    first: Callable[[], dict[str, Any]]
    run: Callable[[], dict[str, float]]


def batch(shape: Shape) -> tuple[np.ndarray, np.ndarray]:
    """Random tokens and their successors, (B, T) each: the time of a step does not depend on what they are."""
    tokens = generator(SEED, "bench").integers(0, shape.config.vocab_size, (shape.rows, shape.context + 1), dtype=np.int64)
    return np.ascontiguousarray(tokens[:, :-1]), np.ascontiguousarray(tokens[:, 1:])


def timed_steps(step: Callable[[], tuple[float, float]], shape: Shape) -> Side:
    """A side that trains."""

    def first():
        loss, norm = step()
        return {"loss": loss, "gradient_norm": norm}

    def run():
        began = time.perf_counter()
        for _ in range(shape.steps):
            step()
        return {"step": (time.perf_counter() - began) / shape.steps}

    return Side(first, run)


def timed_decoding(generate: Callable[[int], tuple[list[int], list[float]]], shape: Shape) -> Side:
    """A side that decodes. generate(n): n tokens, and the seconds that each took, the first one's with the prompt."""

    def first():
        return {"tokens": generate(shape.tokens)[0]}

    def run():
        _, seconds = generate(shape.tokens)
        return {"prompt": seconds[0], "token": sum(seconds[1:]) / (len(seconds) - 1)}

    return Side(first, run)


def ours_training(shape: Shape) -> Side:
    from refllm.training.config import TrainingConfig
    from refllm.training.step import first_state, learner, train_step

    training = TrainingConfig(
        context=shape.context,
        batch=shape.rows,
        steps=1,
        learning_rate=LEARNING_RATE,
        schedule="constant",
        beta1=BETAS[0],
        beta2=BETAS[1],
        eps=EPS,
        weight_decay=WEIGHT_DECAY,
        clip=CLIP,
        seed=SEED,
    )
    learns = learner(architecture(shape.architecture), shape.config, training)
    backend = load()
    state = first_state(learns, backend)
    tokens, targets = (backend.xp.from_numpy(a.astype(np.int32)) for a in batch(shape))

    def step():
        nonlocal state
        state, metrics = train_step(state, [(tokens, targets)], learns)
        return float(metrics.loss), float(metrics.gradient_norm)

    return timed_steps(step, shape)


def torch_training(shape: Shape, fused: bool = False) -> Side:
    import torch

    from refllm.bench import torch_peer

    params = architecture(shape.architecture).initialise(shape.config, SEED)
    model = torch_peer.build(shape.architecture, shape.config, params)
    adamw = torch_peer.optimizer(model, fused)
    tokens, targets = map(torch.from_numpy, batch(shape))
    return timed_steps(lambda: torch_peer.training_step(model, adamw, tokens, targets), shape)


def prompt(shape: Shape) -> list[int]:
    return batch(shape)[0][0].tolist()


def ours_decoding(shape: Shape) -> Side:
    from refllm.decoding import Sampler, generate
    from refllm.models.model import Model

    model = Model.initialise(shape.architecture, shape.config, SEED)
    greedy = Sampler(temperature=0)

    def tokens(n):
        steps = list(generate(model, prompt(shape), n, greedy, SEED))
        return [int(step.tokens[0]) for step in steps], [step.seconds for step in steps]

    return timed_decoding(tokens, shape)


def torch_decoding(shape: Shape) -> Side:
    import torch

    from refllm.bench import torch_peer

    model = torch_peer.build(shape.architecture, shape.config, architecture(shape.architecture).initialise(shape.config, SEED))

    @torch.inference_mode()
    def tokens(n):
        tokens, seconds, began = [], [], time.perf_counter()
        caches = torch_peer.new_caches(shape.config, shape.context + n)
        given, start = torch.tensor([prompt(shape)]), 0
        for _ in range(n):
            logits = model(given, caches, start)
            start += given.shape[1]
            given = logits.argmax(-1, keepdim=True)
            tokens.append(int(given))
            now = time.perf_counter()
            seconds.append(now - began)
            began = now
        return tokens, seconds

    return timed_decoding(tokens, shape)


def prepare(library: str, work: str, shape: Shape, options: dict[str, Any]) -> Side:
    """The side that does this work in this library."""
    if library == "torch":
        return torch_training(shape, **options) if work == "train" else torch_decoding(shape, **options)
    return ours_training(shape, **options) if work == "train" else ours_decoding(shape, **options)


def described(library: str) -> dict[str, Any]:
    """What computes, by version."""
    if library == "torch":
        import torch

        return {"torch": torch.__version__, "threads": torch.get_num_threads()}
    backend = load()
    found: dict[str, Any] = {backend.name: backend.version}
    if backend.name == "numpy":
        import threadpoolctl

        for blas in threadpoolctl.ThreadpoolController().select(user_api="blas").info():
            found |= {
                "blas": f"{blas['internal_api']} {blas['version']} ({blas.get('architecture', '?')})",
                "threads": blas["num_threads"],
            }
    return found


def main() -> None:
    """Serve one caller until it closes our stdin."""
    task = json.loads(sys.argv[1])
    if task["work"].startswith("tokenizer"):
        from refllm.bench import tokenizer_sides

        versions = {task["library"]: importlib.metadata.version(task["library"])}
        side = tokenizer_sides.prepare(task["library"], task["options"])
        imported = memory.resident()  # with the texts
        serve(side, versions, imported)
        return
    shape = (TRAINING if task["work"] == "train" else DECODING)[task["config"]]
    shape = shape._replace(config=type(shape.config)(**{**vars(shape.config), **task["model"]}))
    versions, imported = described(task["library"]), memory.resident()
    serve(prepare(task["library"], task["work"], shape, task["options"]), versions, imported)


def serve(side: Any, versions: dict[str, Any], imported: int) -> None:
    """Answer requests until there are no more."""
    for line in sys.stdin:
        request = line.strip()
        if request == "first":
            memory.forget_peak()
            reply = side.first()
        elif request == "run":
            reply = side.run()
        else:
            reply = {"peak": memory.peak(), "imported": imported, "versions": versions}
            reply["figures"] = getattr(side, "figures", {})
        print(json.dumps(reply), flush=True)


if __name__ == "__main__":
    main()
