"""The same models in Hugging Face transformers, with its `generate` as people call it.

They take refllm's weights. Defaults stand (attention by sdpa, a cache that grows, no compilation) but for what makes every run
greedy and of the same length: do_sample=False, and min_new_tokens, which keeps the token that ends a text from being chosen.
Every token is timed where `generate` hands it out, by a streamer: the first one's time has the prompt in it, as ours has.
"""

import time
from collections.abc import Mapping
from typing import Any

import torch
import transformers

from refllm.models import architecture
from refllm.models.model import Model

CLASSES = {"llama": (transformers.LlamaConfig, transformers.LlamaForCausalLM)}


def build(name: str, config: Any, params: Mapping[str, Any]) -> Any:
    """transformers' model of an architecture with refllm's parameters, NumPy arrays by refllm's names."""
    theirs, module = CLASSES[name], architecture(name)
    fields = module.hugging_face_config(config)
    model = theirs[1](theirs[0](**fields, bos_token_id=1, eos_token_id=2, pad_token_id=0)).eval()
    tensors = {n: torch.from_numpy(x) for n, x in Model(module, config, params).export(params).items()}
    missing, unexpected = model.load_state_dict(tensors, strict=False)
    if unexpected or set(missing) - ({"lm_head.weight"} if config.tied else set()):
        raise ValueError(f"transformers' model lacks {unexpected} and we have no {missing}.")
    model.tie_weights()
    return model


class Clock(transformers.generation.BaseStreamer):
    """Keeps each step's tokens and seconds."""

    def __init__(self) -> None:
        self.steps: list[Any] = []  # the prompt, then each step's tokens (B,)
        self.times: list[float] = []

    def put(self, value: Any) -> None:
        self.steps.append(value)
        self.times.append(time.perf_counter())

    def end(self) -> None:
        """Nothing is held back."""


def generate(model: Any, prompts: Any, n: int) -> tuple[list[int], list[float]]:
    """Continue prompts (B, T) by n tokens. Returns the first row's, and each step's seconds, the first one's with the prompt."""
    clock, tokens = Clock(), torch.from_numpy(prompts)
    began = time.perf_counter()
    model.generate(
        tokens, attention_mask=torch.ones_like(tokens), max_new_tokens=n, min_new_tokens=n, do_sample=False, streamer=clock
    )
    times = [began, *clock.times[1:]]
    return [int(step[0]) for step in clock.steps[1:]], [b - a for a, b in zip(times, times[1:], strict=False)]
