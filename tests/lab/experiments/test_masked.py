"""Sums over all texts of a toy language, and what scores cost."""

import copy
import math

import numpy as np
import pytest

from refllm.evaluation.fill import pseudo_log_likelihood
from refllm.evaluation.likelihood import token_log_probabilities
from refllm.lab.experiment import conduct
from refllm.lab.experiments import masked
from refllm.lab.materials import toy_language, toy_models
from refllm.models import architecture
from refllm.models.model import Model


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    settings = masked.Settings(longest=3, width=8, steps=40, batch=8)
    return conduct(masked, settings, tmp_path_factory.mktemp("lab"), report=lambda line: None)


def bert():
    config = architecture("bert").Config(6, 8, 1, 2, 4, 16)
    return toy_models.in_float64(Model.initialise("bert", config, 0, "numpy", toy_models.tokenizer()))


def test_probabilities_of_the_next_letter_sum_to_one_over_all_texts_trained_or_not(result):
    config = architecture("gpt2").Config(5, 8, 1, 2, 4, 16)
    model = toy_models.in_float64(Model.initialise("gpt2", config, 0, "numpy"))
    for length in (1, 2, 4):
        assert np.exp(toy_models.log_likelihood(model, toy_language.every_text(length))).sum() == pytest.approx(1, abs=1e-12)
    for row in result["tables"]["sums"]:
        assert row["autoregressive"] == pytest.approx(1, abs=1e-12)


def test_beside_both_models_stands_the_language_itself(result):
    for row in result["tables"]["sums"]:
        assert row["texts"] == 4 ** row["length"]
        assert row["language"] == pytest.approx(np.exp(toy_language.pseudo_log_likelihood(row["length"])).sum())
    assert result["tables"]["sums"][1]["language"] == pytest.approx(2.92)  # Σ A², as rows and columns of A sum to one


def test_models_are_made_and_trained_as_the_settings_say(monkeypatch):
    recipes, untrained = [], toy_models.Recipe(3, 8, 1, 2, 1e-3, 0)

    def train(recipe):
        recipes.append(recipe)
        return toy_models.train_autoregressive(untrained)

    monkeypatch.setitem(masked.KINDS, "autoregressive", masked.Kind(train, toy_models.log_likelihood))
    masked.judged(("autoregressive", masked.Settings(longest=3, width=10, steps=7, batch=5, rate=0.25, seed=9)))
    assert recipes == [toy_models.Recipe(longest=3, width=10, steps=7, batch=5, rate=0.25, seed=9)]


def test_guesses_of_one_hidden_letter_sum_to_one_where_there_is_no_other(result):
    assert result["tables"]["sums"][0]["masked"] == pytest.approx(1, abs=1e-12)


def test_a_text_is_read_once_to_read_on_and_once_for_every_hidden_letter(result):
    costs = {row["model"]: row for row in result["tables"]["costs"]}
    assert costs["autoregressive"] == {
        "model": "autoregressive",
        "letters": 3,
        "texts_read": 1,
        "generates": "2 letters",
        "refusal": "",
    }
    assert (costs["masked"]["texts_read"], costs["masked"]["generates"]) == (3, "refuses")
    assert "does not continue a text" in costs["masked"]["refusal"]


def test_pseudo_log_likelihood_is_that_of_evaluation_but_for_tokens_that_are_no_letters():
    model, text = bert(), "b d a c"
    ids = np.array([[1, 3, 0, 2]], dtype=np.int32)
    found = pseudo_log_likelihood(model, text)
    assert found.tokens == (1, 3, 0, 2)
    others = [
        np.log(np.exp(log_softmax(model, np.where(np.arange(4) == t, toy_models.MASK, ids))[0, t, :4]).sum()) for t in range(4)
    ]
    assert toy_models.pseudo_log_likelihood(model, ids)[0] == pytest.approx(found.total - math.fsum(others), abs=1e-12)


def log_softmax(model, tokens):
    logits = np.asarray(model.logits(tokens))
    return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))


def test_log_likelihood_is_that_of_evaluation_but_for_tokens_that_are_no_letters():
    config = architecture("gpt2").Config(5, 8, 1, 2, 4, 16)
    model = toy_models.in_float64(Model.initialise("gpt2", config, 0, "numpy"))
    ids = np.array([[1, 3, 0, 2]], dtype=np.int32)
    behind = toy_models.behind_begin(ids)
    letters = np.log(np.exp(log_softmax(model, behind[:, :-1])[0, :, :4]).sum(axis=-1))
    whole = token_log_probabilities(model, behind)[0]
    assert toy_models.log_likelihood(model, ids)[0] == pytest.approx(float((whole - letters).sum()), abs=1e-12)


def test_the_languages_texts_are_drawn_as_likely_as_they_are():
    texts = toy_language.draw(np.random.default_rng(0), 40_000, 3)
    place = (texts * [16, 4, 1]).sum(axis=1)
    P = np.exp(toy_language.log_likelihood(toy_language.every_text(3)))
    assert P.sum() == pytest.approx(1, abs=1e-12)
    found = np.bincount(place, minlength=64)
    assert (np.abs(found - 40_000 * P) <= 5 * np.sqrt(40_000 * P) + 3).all()


def test_the_languages_own_pseudo_log_likelihood_is_bayes_rule():
    A = toy_language.transitions()
    text = (0, 1, 3)
    first = A[0, 1] / A[:, 1].sum()
    middle = A[0, 1] * A[1, 3] / (A[0] * A[:, 3]).sum()
    found = toy_language.pseudo_log_likelihood(3)[0 * 16 + 1 * 4 + 3]
    assert tuple(toy_language.every_text(3)[7]) == text
    assert found == pytest.approx(math.log(first * middle * A[1, 3]), abs=1e-12)


@pytest.mark.parametrize(
    ("table", "row", "change", "verdict"),
    [
        ("sums", 2, {"masked": 3.0}, "holds"),
        ("sums", 1, {"masked": 1.00001}, "holds"),
        ("sums", 1, {"masked": 0.99999}, "holds"),
        ("sums", 1, {"masked": 1.0000001}, "fails"),
        ("sums", 0, {"masked": 1.0}, "holds"),
        ("sums", 2, {"autoregressive": 1.00001}, "fails"),
        ("sums", 0, {"autoregressive": 0.99999}, "fails"),
        ("costs", 0, {"texts_read": 3}, "fails"),
        ("costs", 0, {"refusal": "no"}, "fails"),
        ("costs", 1, {"texts_read": 1}, "fails"),
        ("costs", 1, {"refusal": ""}, "fails"),
    ],
)
def test_the_claim_is_judged_by_sums_passes_and_refusal(result, table, row, change, verdict):
    found = copy.deepcopy(result)
    for sums in found["tables"]["sums"][1:]:
        sums["masked"] = 2.0
    found["tables"][table][row] |= change
    finding = masked.CLAIMS[0].judge({"masked": found})
    assert finding.verdict == verdict
    assert (finding.value, finding.unit) == (found["tables"]["sums"][-1]["masked"], "sum of exp(PLL)")


@pytest.mark.parametrize("longest", [1, 10])
def test_texts_too_short_or_too_many_are_an_error(longest):
    with pytest.raises(ValueError, match=f"longest={longest}"):
        masked.Settings(longest=longest)
