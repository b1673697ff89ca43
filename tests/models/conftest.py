"""Parameters for models in tests, and transformers to hold them to."""

import numpy as np
import pytest

from refllm import checkpoints
from refllm.models.model import Model


@pytest.fixture(scope="session")
def random_parameters():
    """A function that makes a model's parameters as training leaves them: none of them zero, or one, or tiny."""

    def make(shapes, seed, dtype=np.float64):
        rng = np.random.default_rng(seed)
        return {
            name: (rng.standard_normal(s) / np.sqrt(s[-2]) if len(s) >= 2 else 1 + 0.3 * rng.standard_normal(s)).astype(dtype)
            for name, s in shapes.items()
        }

    return make


@pytest.fixture
def in_transformers(random_parameters, transformers_in_float64):
    """A function that makes a decoder of a configuration, and the model that transformers makes of the folder we write."""

    def make(architecture, config, folder):
        model = Model(architecture, config, random_parameters(architecture.parameter_shapes(config), 0))
        checkpoints.save(folder, model)
        assert checkpoints.load(folder).config == config
        return model, transformers_in_float64.AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager")

    return make


@pytest.fixture
def agrees_with_transformers(in_transformers):
    """A check that a configuration's logits and every gradient are those of transformers; it returns their model."""

    def check(architecture, config, folder):
        import torch

        model, theirs = in_transformers(architecture, config, folder)
        tokens, targets = np.random.default_rng(1).integers(0, config.vocab_size, (2, 2, 11))
        logits = theirs(torch.from_numpy(tokens)).logits
        torch.nn.functional.cross_entropy(logits.reshape(-1, config.vocab_size), torch.from_numpy(targets).reshape(-1)).backward()
        expected, actual = logits.detach().numpy(), model.logits(tokens)
        assert actual.dtype == expected.dtype == np.float64
        assert np.all(np.abs(actual - expected) <= 1e-12 * np.max(np.abs(expected)))
        gradients, named = model.gradients(tokens, targets), dict(theirs.named_parameters())
        for ours, (name, transposed) in architecture.hugging_face_names(config).items():
            expected = named.pop(name).grad.numpy()
            expected = expected.T if transposed else expected
            assert np.all(np.abs(gradients[ours] - expected) <= 1e-11 * np.max(np.abs(expected))), ours
        assert not named
        return theirs

    return check


@pytest.fixture
def pads_as_transformers(in_transformers):
    """A check that rows padded at the left have the logits of transformers."""

    def check(architecture, config, folder):
        import torch

        model, theirs = in_transformers(architecture, config, folder)
        tokens = np.random.default_rng(1).integers(0, config.vocab_size, (2, 9))
        valid = np.arange(9)[None, :] >= np.asarray([[4], [0]])
        positions = np.maximum(np.cumsum(valid, axis=1) - 1, 0)
        with torch.no_grad():
            tensors = [torch.from_numpy(a) for a in (tokens, valid.astype(np.int64), positions)]
            expected = theirs(tensors[0], attention_mask=tensors[1], position_ids=tensors[2]).logits.numpy()
        actual = architecture.forward(model.params, tokens, config, valid=valid).logits
        assert np.all(np.abs(actual - expected)[valid] <= 1e-12 * np.max(np.abs(expected)))

    return check
