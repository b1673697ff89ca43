"""What the tests of layers share: each runs with plain bodies and with kernels, and torch's autograd stands beside."""

from contextlib import ExitStack

import numpy as np
import pytest

from refllm.array_api import is_installed, kernels, load


@pytest.fixture(params=["plain", "kernels"], autouse=True)
def bodies(request):
    """Run the test with the plain bodies of all ops, then with the kernels that the backends bring."""
    with ExitStack() as stack:
        for name in ("numpy", "strict", "mlx"):
            if is_installed(name):
                backend = load(name)
                stack.enter_context(kernels(backend, {} if request.param == "plain" else backend.kernels))
        yield request.param


@pytest.fixture(scope="session")
def assert_agrees_with_torch():
    """A check that an op's results and gradients are torch's within 1e-10 of the largest number, in float64."""
    import torch

    def check(forward, backward, arguments, theirs):
        """theirs: the same function of the array arguments as torch tensors; integers and truth values come as such."""
        y, saved = forward(*arguments)
        dy = np.asarray(np.random.default_rng(1).standard_normal(y.shape))
        ours = backward(dy, saved)
        ours = ours if isinstance(ours, tuple) else (ours,)
        tensors = [torch.tensor(a) for a in arguments if isinstance(a, np.ndarray)]
        floats = [t.requires_grad_() for t in tensors if t.is_floating_point()]
        their_y = theirs(*tensors)
        gradients = torch.autograd.grad(their_y, floats, torch.tensor(dy))
        for mine, other in zip((y, *ours), (their_y, *gradients), strict=True):
            other = other.detach().numpy()
            assert mine.shape == other.shape
            assert np.all(np.abs(mine - other) <= 1e-10 * np.max(np.abs(other), initial=1e-300)), (mine, other)

    return check
