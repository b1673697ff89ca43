"""Floor 3: prefill, decode and sampling with a KV cache."""

from refllm.decoding.cache import new_cache
from refllm.decoding.generate import Step, decode, generate, pad_left, prefill
from refllm.decoding.sampling import Sampler, sample
from refllm.decoding.text import Piece, continue_text

__all__ = ["Piece", "Sampler", "Step", "continue_text", "decode", "generate", "new_cache", "pad_left", "prefill", "sample"]
