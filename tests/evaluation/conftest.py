"""Models whose every probability is known, tokenizers of few tokens, and small models: decoders and a BERT."""

import numpy as np
import pytest

from refllm.array_api import generator, load
from refllm.models import architecture, bert, llama
from refllm.models.model import Model
from refllm.tokenizer import AddedToken, Template, Tokenizer, train_bpe
from refllm.tokenizer.word_piece import WordPiece

CONFIGS = {
    "llama": {"n_kv_heads": 2, "d_head": 4, "d_ff": 12},
    "llama, windowed": {"n_kv_heads": 4, "d_head": 2, "d_ff": 12, "window": 3, "tied": True},
    "gpt2": {"d_ff": 12},
}


@pytest.fixture(params=CONFIGS, scope="session")
def make_model(request):
    """A function from a backend's name to the same small model there; in float32 unless another dtype is named."""

    def make(backend="numpy", dtype="float32", max_positions=16, tokenizer=None):
        name, xp = request.param.partition(",")[0], load(backend).xp
        V = 23 if tokenizer is None else tokenizer.vocab_size
        sizes = {"vocab_size": V, "d_model": 8, "n_layers": 2, "n_heads": 4, "max_positions": max_positions}
        module = architecture(name)
        config = module.Config(**sizes, **CONFIGS[request.param])
        params = {}
        for i, (parameter, shape) in enumerate(module.parameter_shapes(config).items()):
            vector = len(shape) == 1
            values = generator(0, "test", i).normal(float(vector), 0.1 if vector else shape[0] ** -0.5, shape)
            params[parameter] = xp.from_numpy(values.astype(np.float32), dtype=getattr(xp, dtype))  # the same in every dtype
        return Model(module, config, params, tokenizer)

    return make


@pytest.fixture(scope="session")
def tokenizer():
    """A byte-level BPE of 300 tokens and one that ends a document."""
    return train_bpe("the cat sat on the mat. the dog ran to the tree, and the cat slept under it. süß 🌍 " * 9, 300)


@pytest.fixture(scope="session")
def bigram():
    """A function from probabilities (V, V), row a those of the token after a, to a model that has exactly these.

    A Llama without effect: its blocks' matrices are zero, so the last features are the embedding's, normed. With one-hot rows
    these are √V at the token, and the head undoes that.
    """

    def make(probabilities, tokenizer=None, max_positions=64):
        V = len(probabilities)
        config = llama.Config(V, V + V % 2, 1, 1, 1, 2, 2, max_positions, norm_eps=1e-30)
        params = {name: np.zeros(shape) for name, shape in llama.parameter_shapes(config).items()}
        params |= {"embedding": np.eye(V, config.d_model), "norm": np.ones(config.d_model)}
        params["lm_head"] = np.zeros((config.d_model, V))
        params["lm_head"][:V] = np.log(np.maximum(probabilities, 1e-300)) / config.d_model**0.5  # what never follows
        return Model(llama, config, params, tokenizer)

    return make


@pytest.fixture(scope="session")
def masked_tokenizer():
    """A WordPiece vocabulary with BERT's special tokens, [CLS] before and [SEP] behind a text."""
    pieces = ["the", "cat", "sat", "on", "mat", "##s", "dog", "##ting", "sit", ".", "a"]
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    model = WordPiece({len(special) + i: piece for i, piece in enumerate(pieces)}, 1)
    added = [AddedToken(id, content, special=True) for id, content in enumerate(special)]
    return Tokenizer(model, added, template=Template((2,), (3,)))


@pytest.fixture(scope="session")
def make_masked_model(masked_tokenizer):
    """A function from a backend's name to the same small BERT there."""

    def make(backend="numpy", dtype="float32", tokenizer=masked_tokenizer):
        xp = load(backend).xp
        config = bert.Config(masked_tokenizer.vocab_size, d_model=8, n_layers=2, n_heads=2, max_positions=12, d_ff=12)
        params = {}
        for i, (name, shape) in enumerate(bert.parameter_shapes(config).items()):
            values = generator(0, "test", i).normal(float(name.endswith("gain")), 0.5, shape)
            params[name] = xp.from_numpy(values.astype(np.float32), dtype=getattr(xp, dtype))
        return Model(bert, config, params, tokenizer)

    return make
