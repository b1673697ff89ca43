"""Models in GGUF files: llama.cpp's names, fields and layouts, turned back into those of Hugging Face.

What llama.cpp's converter changes is undone: Llama's q and k, whose features it pairs as (2i, 2i+1), GPT-2's matrices, which it
turns to (out, in), Gemma's norms, to whose gains it adds one, and Mixtral's experts, which it stacks.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from refllm.array_api import Backend, load
from refllm.checkpoints import gguf_file
from refllm.checkpoints.gguf_file import GGUF, Stored, package
from refllm.checkpoints.gguf_tokenizer import read_tokenizer
from refllm.checkpoints.llama2c import halves_from_pairs
from refllm.checkpoints.names import architecture_of, by_our_names, parameters, read_configuration
from refllm.checkpoints.tensor_file import Tensor
from refllm.layers.rope import rope_frequencies
from refllm.models.model import Model

MODEL_TYPES = {  # general.architecture: model_type
    "llama": "llama",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
    "gpt2": "gpt2",
    "gemma": "gemma",
    "gemma2": "gemma2",
    "gemma3": "gemma3_text",
}
FREQUENCIES = "rope_freqs.weight"  # by what Llama 3.1's rotary frequencies are divided
# The scalings that Llama 3.1 and 3.2 were published with, whose numbers a GGUF file has no fields for
PUBLISHED_SCALINGS = [
    {"rope_type": "llama3", "factor": factor, "low_freq_factor": 1.0, "high_freq_factor": 4.0} for factor in (8.0, 32.0)
]
EXPERT = re.compile(r"model\.layers\.(\d+)\.block_sparse_moe\.experts\.(\d+)\.(w[123])\.weight")
EXPERT_MATRICES = {"w1": "gate", "w2": "down", "w3": "up"}


def read_model(path: str | Path, backend: str | Backend | None = None, dtype: str | None = None) -> Model:
    """Read a model and its tokenizer. Parameters are read from the file, and what is quantised as float32, when they are used.

    dtype: of the parameters, such as "float32"; None: that of the file where the backend computes in it, else float32
    Raises OSError where there is no file, ImportError where the package gguf is missing, ValueError for a file that is damaged
    or holds a model that is not computed here.
    """
    path, computing = Path(path), load(backend)
    file = gguf_file.read(path)
    fields = Fields(file, path).hugging_face()
    module = architecture_of(fields, str(path))
    config = read_configuration(fields, module, len(file.tensors), str(path))
    tensors = by_our_names(by_hugging_face_names(file, fields, module.hugging_face_names(config)), module, config, str(path))
    return Model(module, config, parameters(tensors, computing, dtype), read_tokenizer(file.metadata, path))


class Fields:
    """The fields that say what model a file holds."""

    def __init__(self, file: GGUF, path: Path):
        self.file, self.path = file, path
        name = file.metadata.get("general.architecture")
        if not isinstance(name, str) or name not in MODEL_TYPES:
            raise ValueError(f"{path} has general.architecture={name!r}; {', '.join(MODEL_TYPES)} can be read.")
        self.architecture: str = name
        parts = file.metadata.get("split.count", 1)
        if type(parts) is not int or parts > 1:
            raise ValueError(f"{path} is one of {parts} parts of a model; join them with `llama-gguf-split --merge`.")

    def get(self, name: str, kind: type, *default: Any) -> Any:
        """A field of the architecture, or the default. Raises ValueError where there is neither, or one of another type."""
        key = f"{self.architecture}.{name}"
        value = self.file.metadata.get(key, *default)
        if key not in self.file.metadata and not default:
            raise ValueError(f"{self.path} has no {key}, which its model needs.")
        if value is not None and type(value) is not kind:
            raise ValueError(f"{self.path} has {key} of type {type(value).__name__}; it must be {kind.__name__}.")
        return value

    def hugging_face(self) -> dict[str, Any]:
        """The fields of config.json that say the same."""
        kind = MODEL_TYPES[self.architecture]
        if "token_embd.weight" not in self.file.tensors or len(self.file.tensors["token_embd.weight"].shape) != 2:
            raise ValueError(f"{self.path} has no table of embeddings, token_embd.weight.")
        vocab_size = self.file.tensors["token_embd.weight"].shape[0]
        fields = self.gpt2() if kind == "gpt2" else self.llama()
        if kind == "llama" and self.get("expert_count", int, 0):
            kind = "mixtral"
            fields |= {
                "num_local_experts": self.get("expert_count", int),
                "num_experts_per_tok": self.get("expert_used_count", int),
            }
        elif kind == "llama" and self.get("attention.sliding_window", int, 0):
            kind = "mistral"
        elif self.architecture in ("gemma2", "gemma3"):
            fields |= self.gemma()
        return fields | {"model_type": kind, "vocab_size": vocab_size}

    def gpt2(self) -> dict[str, Any]:
        """GPT-2's own."""
        return {
            "n_embd": self.get("embedding_length", int),
            "n_layer": self.get("block_count", int),
            "n_head": self.get("attention.head_count", int),
            "n_positions": self.get("context_length", int),
            "n_inner": self.get("feed_forward_length", int),
            "layer_norm_epsilon": self.get("attention.layer_norm_epsilon", float),
        }

    def llama(self) -> dict[str, Any]:
        """Those of Llama and its relatives."""
        n_heads, d_model = self.get("attention.head_count", int), self.get("embedding_length", int)
        if n_heads < 1:
            raise ValueError(f"{self.path} has {n_heads} attention heads.")
        turned = self.get("rope.dimension_count", int, None)
        d_head = self.get("attention.key_length", int, turned or d_model // n_heads)
        if turned not in (None, d_head) or self.get("attention.value_length", int, d_head) != d_head:
            raise ValueError(f"{self.path} has heads whose keys, values and rotary positions are not of one width.")
        context = self.get("context_length", int)
        window = self.get("attention.sliding_window", int, None)
        return {
            "hidden_size": d_model,
            "num_hidden_layers": self.get("block_count", int),
            "num_attention_heads": n_heads,
            "num_key_value_heads": self.get("attention.head_count_kv", int, n_heads),
            "head_dim": d_head,
            "intermediate_size": self.get("feed_forward_length", int),
            "max_position_embeddings": context,
            "rms_norm_eps": self.get("attention.layer_norm_rms_epsilon", float),
            "rope_theta": self.get("rope.freq_base", float, 10_000.0),
            "rope_scaling": self.rope_scaling(d_head, context),
            "sliding_window": window,
            "use_sliding_window": bool(window),
            "max_window_layers": 0,
            "attention_bias": "blk.0.attn_q.bias" in self.file.tensors,
            "mlp_bias": "blk.0.ffn_up.bias" in self.file.tensors,
            "tie_word_embeddings": "output.weight" not in self.file.tensors,
        }

    def rope_scaling(self, d_head: int, context: int) -> dict[str, Any] | None:
        """How rotary frequencies are scaled. Raises ValueError for a way that is not known."""
        kind = self.get("rope.scaling.type", str, "none")
        factor = self.get("rope.scaling.factor", float, self.get("rope.scale_linear", float, 1.0))
        original = self.get("rope.scaling.original_context_length", int, context)
        if FREQUENCIES in self.file.tensors:
            return self.llama3_scaling(d_head)
        if kind == "none" or (kind == "linear" and factor == 1):
            return None
        if kind == "linear":
            return {"rope_type": "linear", "factor": factor}
        known = {
            f"{self.architecture}.rope.scaling.{name}" for name in ("type", "factor", "original_context_length", "finetuned")
        }
        given = {key for key in self.file.metadata if key.startswith(f"{self.architecture}.rope.scaling.")}
        if kind != "yarn" or given - known:
            raise ValueError(
                f"{self.path} scales rotary positions by {', '.join(sorted(given - known)) or kind}, which is not known."
            )
        return {"rope_type": "yarn", "factor": factor, "original_max_position_embeddings": original}

    def llama3_scaling(self, d_head: int) -> dict[str, Any]:
        """The published scaling of Llama 3.1 or 3.2 whose divisors of the frequencies the file holds."""
        from refllm.models.llama import read_scaling

        divisors = self.file.tensors[FREQUENCIES].values().astype(np.float64)
        theta = self.get("rope.freq_base", float, 10_000.0)
        plain = np.asarray(rope_frequencies(d_head, theta)) if theta > 0 else np.zeros(0)
        for fields in PUBLISHED_SCALINGS:
            fields = fields | {"original_max_position_embeddings": 8192}
            scaled = np.asarray(rope_frequencies(d_head, theta, read_scaling(fields, 8192))) if theta > 0 else plain
            if divisors.shape == plain.shape and np.all(np.abs(divisors * scaled - plain) <= 1e-5 * plain):
                return fields
        raise ValueError(f"{self.path} divides rotary frequencies by {FREQUENCIES} as no Llama 3 does.")

    def gemma(self) -> dict[str, Any]:
        """What Gemma 2 and 3 have beyond Llama; the largest scale scores by the width of the model, not of a head."""
        largest = {"gemma2": 46, "gemma3": 62}[self.architecture] == self.get("block_count", int)
        d_model, n_heads = self.get("embedding_length", int), self.get("attention.head_count", int)
        fields: dict[str, Any] = {"sliding_window": self.get("attention.sliding_window", int)}
        fields["query_pre_attn_scalar"] = d_model // n_heads if largest else self.get("attention.key_length", int)
        if self.architecture == "gemma3":
            return fields | {"sliding_window_pattern": 6, "rope_local_base_freq": 10_000.0}
        for name in ("attn_logit_softcapping", "final_logit_softcapping"):
            fields[name] = self.get(name, float)
        return fields


def by_hugging_face_names(file: GGUF, fields: Mapping[str, Any], names: Mapping[str, tuple[Any, bool]]) -> dict[str, Tensor]:
    """The tensors of a file under Hugging Face's names and in its layout; those that have no such name keep theirs."""
    gguf, architecture = package(), file.metadata["general.architecture"]
    kinds = {name: kind for kind, name in gguf.MODEL_ARCH_NAMES.items()}
    theirs_of = gguf.get_tensor_name_map(kinds[architecture], fields.get("num_hidden_layers", fields.get("n_layer")))
    used, tensors = {FREQUENCIES}, {}
    for stored, _ in names.values():
        for name in (stored,) if isinstance(stored, str) else stored:
            theirs, part = theirs_of.get_name(name, (".weight", ".bias")), None
            if expert := EXPERT.fullmatch(name):
                layer, part, matrix = int(expert[1]), int(expert[2]), EXPERT_MATRICES[expert[3]]
                theirs = f"blk.{layer}.ffn_{matrix}_exps.weight"
                if theirs not in file.tensors:  # files of the first months have one tensor for each expert
                    theirs, part = f"blk.{layer}.ffn_{matrix}.{part}.weight", None
            if theirs not in file.tensors:
                continue
            used.add(theirs)
            whole = file.tensors[theirs]
            if part is not None and (len(whole.shape) != 3 or whole.shape[0] != fields["num_local_experts"]):
                continue
            tensors[name] = as_hugging_face(whole if part is None else whole.part(part), name, fields)
    return tensors | {
        name: stored.tensor() for name, stored in file.tensors.items() if name not in used and _of_model(name, fields)
    }


def as_hugging_face(stored: Stored, name: str, fields: Mapping[str, Any]) -> Tensor:
    """A tensor as Hugging Face has it."""
    tensor, kind = stored.tensor(), fields["model_type"]
    turned = re.search(r"self_attn\.([qk])_proj\.(weight|bias)$", name)
    if kind in ("llama", "mistral", "mixtral") and turned:
        n_heads = fields["num_attention_heads" if turned[1] == "q" else "num_key_value_heads"]
        if n_heads > 0 and stored.shape and stored.shape[0] == n_heads * fields["head_dim"] and fields["head_dim"] % 2 == 0:
            return tensor._replace(values=lambda: _halves(stored.values(), n_heads))
    if kind == "gpt2" and re.search(r"\.(c_attn|c_proj|c_fc)\.weight$", name):
        return Tensor(tensor.dtype, tensor.shape[::-1], lambda: tensor.values().T)
    if kind.startswith("gemma") and name.endswith("norm.weight"):
        return tensor._replace(values=lambda: tensor.values() - 1)
    return tensor


def _halves(rows: np.ndarray, n_heads: int) -> np.ndarray:
    return halves_from_pairs(rows.reshape(len(rows), -1), n_heads).reshape(rows.shape)


def _of_model(name: str, fields: Mapping[str, Any]) -> bool:
    """Whether a tensor without a name in Hugging Face's files says something: GPT-2's head is its embedding once more."""
    return not (name == "output.weight" and fields["model_type"] == "gpt2")
