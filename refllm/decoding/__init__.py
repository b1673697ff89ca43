"""Floor 3: prefill, decode and sampling with a KV cache."""

from refllm.decoding.beam_search import Beams, Hypothesis, beam_search
from refllm.decoding.cache import new_cache
from refllm.decoding.chunks import chunk_within
from refllm.decoding.constrained import Constraint, Form, by_choices, by_json_schema, by_regex, constrain
from refllm.decoding.contrastive_search import Choice, Contrast, contrastive_search
from refllm.decoding.drafts import DraftModel, PromptLookup
from refllm.decoding.generate import Step, decode, generate, pad_left, prefill
from refllm.decoding.memory import Memory, join_memory, remember, take_memory
from refllm.decoding.prefix_cache import PrefixCache
from refllm.decoding.request import Event, Request
from refllm.decoding.sampler import Mirostat, Sampler
from refllm.decoding.sampling import distribution, observe, sample, uniforms
from refllm.decoding.serve import serve
from refllm.decoding.speculative import Burst, speculate
from refllm.decoding.stops import StopStrings
from refllm.decoding.text import Piece, continue_text

__all__ = [
    "Beams",
    "Burst",
    "Choice",
    "Constraint",
    "Contrast",
    "DraftModel",
    "Event",
    "Form",
    "Hypothesis",
    "Memory",
    "Mirostat",
    "Piece",
    "PrefixCache",
    "PromptLookup",
    "Request",
    "Sampler",
    "Step",
    "StopStrings",
    "beam_search",
    "by_choices",
    "by_json_schema",
    "by_regex",
    "chunk_within",
    "constrain",
    "continue_text",
    "contrastive_search",
    "decode",
    "distribution",
    "generate",
    "join_memory",
    "new_cache",
    "observe",
    "pad_left",
    "prefill",
    "remember",
    "sample",
    "serve",
    "speculate",
    "take_memory",
    "uniforms",
]
