"""The same text from the same seed: a backend chooses the oracle's token, or the decision is nearer than the bound."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import assume
from hypothesis import strategies as st

from refllm.array_api import Backend
from refllm.decoding import generate
from refllm.decoding.sampler import Sampler
from refllm.models import architecture
from refllm.models.model import Model

from . import bounded
from .check import Check
from .comparison import carried
from .decisions import choices, judged
from .model_checks import MODELS, decided, parameters
from .scatter import scattered
from .strategies import seeds

SAMPLERS = [
    Sampler(0.0),
    Sampler(0.0, repetition_penalty=1.5),
    Sampler(1.0),
    Sampler(0.7, top_k=5, top_p=0.9),
    Sampler(1.0, min_p=0.05, frequency_penalty=0.5, no_repeat_ngram=2),
    Sampler(1.5, typical_p=0.9, epsilon=0.01),
    Sampler(1.0, top_p=0.9, draws="llama2.c"),
]
LONGEST = 16  # positions of the models drawn


@st.composite
def _texts(draw, name):
    """A small model, a prompt, a sampler, a seed."""
    config = draw(MODELS[name])
    params = draw(parameters(name, config))
    prompt = [t % config.vocab_size for t in draw(st.lists(st.integers(0, 99), min_size=1, max_size=5))]
    return name, config, params, prompt, draw(st.sampled_from(SAMPLERS)), 1 + draw(seeds)


@dataclass(frozen=True)
class TextCheck(Check):
    """A check whose result is a text: each step is judged given the text so far, so that all count and not the first alone."""

    def shares(self, backend: Backend, drawn: Any, dtype: str = "float32") -> dict[str, float]:
        """0 for a text that is the oracle's, else the largest margin of a step at which it is not, as a share of the bound."""
        name, config, params, prompt, sampler, seed = drawn
        model = Model(architecture(name), config, carried(params, backend, dtype))
        steps = generate(model, prompt, LONGEST - len(prompt), sampler, seed)
        text = [int(step.tokens[0]) for step in steps]
        assume(decided(name, config, params, np.asarray([prompt + text], dtype=np.int32)))
        with np.errstate(all="ignore"):
            exact = self.logits(drawn, text[:-1], dtype).value
            wrong = [c for c, token in zip(choices(exact, prompt, text, sampler, seed), text, strict=True) if c.token != token]
            if not wrong:
                return {"text": 0.0}
            bounds = self.bounds(drawn, text[:-1], dtype)
            near = [judged(choice, bounds, sampler) for choice in wrong]
        return {f"token {decision.step}": decision.certain / decision.bound for decision in near}

    def oracle(self, drawn: Any, dtype: str = "float32") -> dict[str, bounded.Bounded]:
        """The logits of the first decision, each with its bound."""
        return {"logits": self.bounds(drawn, [], dtype)}

    def logits(self, drawn: Any, text: list[int], dtype: str) -> bounded.Bounded:
        """The oracle's logits (n, V), of which row s decides on token s, given the tokens before it."""
        name, config, params, prompt, *_ = drawn
        inputs = carried((params, np.asarray([prompt + text], dtype=np.int32)), bounded.backend, dtype)
        return architecture(name).forward(*inputs, config).logits[0, len(prompt) - 1 :, :]

    def bounds(self, drawn: Any, text: list[int], dtype: str) -> bounded.Bounded:
        """The same, each with the bound on its error."""
        return scattered(lambda: {"logits": self.logits(drawn, text, dtype)})["logits"]


CHECKS: list[Check] = [
    TextCheck(f"{name}: the same text", "decoding", _texts(name), lambda backend, drawn: {}, halves=False) for name in MODELS
]
