"""The small character-level transformers that experiments on a text share: size, training, probabilities and loss."""

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import numpy as np

from refllm.array_api import generator, load
from refllm.lab.running.learn import Batch, Snapshot, learn
from refllm.layers.cross_entropy import cross_entropy
from refllm.models import architecture
from refllm.training.config import TrainingConfig

UNIT = "nats/character"
ARCHITECTURE = "llama"
GAIN = 0.5  # of the first weights (`learn.spread`): half of LeCun's gives narrow models lower losses, and less spread of seeds
RATE, WIDTH, POWER = 4e-3, 24, -0.71  # a good learning rate at one width, and its power of the width


def pieces(ids: np.ndarray, length: int, seed: int) -> np.ndarray:
    """A text's whole pieces of this length, in a random order: (n, length)."""
    found = ids[: len(ids) // length * length].reshape(-1, length)
    return found[generator(seed, "pieces").permutation(len(found))]


def config_of(width: int, vocab_size: int, context: int) -> Any:
    """A small Llama: two layers, three from width 64 on; heads of 16 features, two at least; the head tied to the embedding."""
    heads = max(2, width // 16)
    return architecture(ARCHITECTURE).Config(
        vocab_size=vocab_size,
        d_model=width,
        n_layers=3 if width >= 64 else 2,
        n_heads=heads,
        n_kv_heads=heads,
        d_head=max(2, width // heads // 2 * 2),
        d_ff=max(4, round(8 * width / 3 / 4) * 4),
        max_positions=context,
        tied=True,
    )


def training_of(rate: float, steps: int, batch: int, context: int, seed: int) -> TrainingConfig:
    """AdamW at a constant learning rate after a short warm-up, without weight decay.

    β₂ is set by its half-life in tokens, so that it means the same at small batches (Marek 2025, arXiv:2507.07101).
    """
    return TrainingConfig(
        context=context,
        batch=batch,
        steps=steps,
        learning_rate=rate,
        schedule="constant",
        warmup_steps=min(100, steps // 4),
        beta2=0.95 ** (batch * context / 1024),
        weight_decay=0.0,
        seed=seed,
    )


def training(width: int, steps: int, batch: int, context: int, seed: int) -> TrainingConfig:
    """`training_of` at a good learning rate for this width."""
    return training_of(min(1e-2, RATE * (width / WIDTH) ** POWER), steps, batch, context, seed)


def learned(
    config: Any, batch: int, context: int, seed: int, batch_at: Callable[[int], Batch], steps: Collection[int]
) -> Iterator[Snapshot]:
    """Train a model on `batch` windows of `context` characters in each update: a snapshot after each of these steps."""
    recipe = training(config.d_model, max(steps), batch, context, seed)
    return learn(ARCHITECTURE, config, recipe, batch_at, steps, gain=GAIN)


def padded(rows: Sequence[tuple[Sequence[int], Sequence[int]]], length: int) -> Batch:
    """Tokens and targets of R texts of different lengths: (R, length) int32 each, padded with 0 and the ignored target −100."""
    tokens, targets = np.zeros((len(rows), length), np.int32), np.full((len(rows), length), -100, np.int32)
    for i, (read, predicted) in enumerate(rows):
        tokens[i, : len(read)], targets[i, : len(predicted)] = read, predicted
    return tokens, targets


def probabilities(params: Any, config: Any, tokens: np.ndarray, rows: int = 64) -> np.ndarray:
    """The probabilities of the next token at every position of windows (B, T): (B, T, V) float64. rows: of one forward pass"""
    xp, model, found = load().xp, architecture(ARCHITECTURE), []
    for i in range(0, len(tokens), rows):
        output = model.forward(params, xp.from_numpy(tokens[i : i + rows]), config, checkpointing=True)
        logits = xp.to_numpy(output.logits).astype(np.float64)
        p = np.exp(logits - logits.max(axis=-1, keepdims=True))
        found.append(p / p.sum(axis=-1, keepdims=True))
    return np.concatenate(found)


def loss_of(params: Any, config: Any, windows: tuple[np.ndarray, np.ndarray], rows: int = 64) -> float:
    """The mean loss over windows of tokens and targets (n, T), in nats per token."""
    xp, model, total = load().xp, architecture(ARCHITECTURE), 0.0
    tokens, targets = windows
    for i in range(0, len(tokens), rows):
        logits = model.forward(params, xp.from_numpy(tokens[i : i + rows]), config, checkpointing=True).logits
        loss, _ = cross_entropy(logits, xp.from_numpy(targets[i : i + rows]))
        total += float(xp.to_numpy(loss)) * len(tokens[i : i + rows])
    return total / len(tokens)
