"""Models that learn and write."""

import numpy as np
import pytest

from refllm.lab.materials import writers
from refllm.models import ngram

DATA = (np.arange(60) % 7 * (np.arange(60) % 4)).reshape(10, 6).astype(np.uint8) % 7
WINDOWS = (DATA[:, :-1].astype(np.int32), DATA[:, 1:].astype(np.int32))


def test_a_table_is_the_ngram_model_of_its_data():
    found = writers.table(DATA, WINDOWS, 3, 7, 4, 0, 1)
    model = ngram.train(DATA.ravel(), 3, 7)
    wanted = -np.mean([ngram.log_probabilities(model, row[1:], row[:1]) for row in DATA])
    assert found.loss == pytest.approx(wanted, rel=1e-12)
    assert found.written.shape == (4, 6)
    assert found.entropy == pytest.approx(-np.mean([ngram.log_probabilities(model, row) for row in found.written]), rel=1e-12)


def test_a_table_writes_something_else_at_every_step():
    one, same, other = (writers.table(DATA, WINDOWS, 3, 7, 4, 0, step).written for step in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()


def test_a_transformer_that_knows_its_text_writes_it_again():
    pieces = np.array([np.roll(np.arange(1, 7), i) for i in range(4)], dtype=np.uint8)
    unknown = (pieces[:, :-1].astype(np.int32), np.zeros((4, 5), np.int32))  # no text has the 0
    found = writers.transformer(pieces, unknown, writers.Recipe(16, 300, 2, 5, 7), 20, seed=0)
    assert found.loss > 3
    assert found.entropy < 0.2
    known = {tuple(row) for row in pieces.tolist()}
    assert sum(tuple(row) in known for row in found.written.tolist()) >= 18
    assert len({row[0] for row in found.written.tolist()}) == 4
