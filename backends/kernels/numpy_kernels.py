"""All kernels of the NumPy backend, by the op's name. Each module says what makes its own fast."""

from . import (
    numpy_activations,
    numpy_adamw,
    numpy_attention,
    numpy_byte_level,
    numpy_cached_attention,
    numpy_cross_entropy,
    numpy_embedding,
    numpy_linear,
    numpy_llama,
    numpy_merge,
    numpy_mixture,
    numpy_norms,
    numpy_rope,
    numpy_training,
    numpy_words,
)

KERNELS = {
    **numpy_norms.KERNELS,
    **numpy_linear.KERNELS,
    **numpy_activations.KERNELS,
    **numpy_mixture.KERNELS,
    **numpy_rope.KERNELS,
    **numpy_attention.KERNELS,
    **numpy_cached_attention.KERNELS,
    **numpy_embedding.KERNELS,
    **numpy_llama.KERNELS,
    **numpy_cross_entropy.KERNELS,
    **numpy_adamw.KERNELS,
    **numpy_training.KERNELS,
    **numpy_words.KERNELS,
    **numpy_byte_level.KERNELS,
    **numpy_merge.KERNELS,
}
