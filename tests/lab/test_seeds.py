"""Models of several seeds."""

import pytest

from refllm.lab.seeds import over_seeds


def test_models_that_differ_in_their_seeds_alone_share_a_row():
    about = {"width": 4, "parameters": 100}
    rows = [
        about | {"seed": seed, "temperature": t, "loops": loops, "distinct": distinct}
        for seed, t, loops, distinct in ((0, 0.5, 0.5, 0.1), (0, 0.0, 0.0, 0.8), (1, 0.5, 0.75, 0.3), (1, 0.0, 0.25, 0.6))
    ]
    assert over_seeds(rows, ("width", "parameters", "temperature"), "loops", ("distinct",)) == [
        about | {"temperature": 0.5, "loops": 0.625, "distinct": pytest.approx(0.2), "least": 0.5, "greatest": 0.75},
        about | {"temperature": 0.0, "loops": 0.125, "distinct": pytest.approx(0.7), "least": 0.0, "greatest": 0.25},
    ]
    assert set(over_seeds(rows, ("width",), "loops")[0]) == {"width", "loops", "least", "greatest"}
