"""Floor 3: prefill, decode and sampling with a KV cache."""

from refllm.decoding.cache import new_cache
from refllm.decoding.generate import Step, decode, generate, pad_left, prefill
from refllm.decoding.memory import Memory, join_memory, remember, take_memory
from refllm.decoding.sampler import Mirostat, Sampler
from refllm.decoding.sampling import distribution, observe, sample, uniforms
from refllm.decoding.text import Piece, continue_text

__all__ = [
    "Memory",
    "Mirostat",
    "Piece",
    "Sampler",
    "Step",
    "continue_text",
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
    "take_memory",
    "uniforms",
]
