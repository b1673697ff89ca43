"""Bits of texts that are easy and hard to foresee, and their codes."""

import copy
import math

import numpy as np
import pytest

from refllm.lab import forecasters, predictability
from refllm.lab.experiment import conduct
from refllm.lab.forecasters import decoded, encoded
from refllm.lab.text_kinds import KINDS, Source
from refllm.models import architecture
from refllm.models.model import Model

SOURCE = Source(("the", "cat", "saw", "a", "dog", "and", "went", "home"), " abcdefghijklmnopqrstuvwxyz0123456789")


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """A file with words for the experiment."""
    path = tmp_path_factory.mktemp("text") / "words.txt"
    rng = np.random.default_rng(0)
    words = ["".join(rng.choice(list("etaoin"), rng.integers(1, 7))) for _ in range(60)]
    lines = [" ".join(rng.choice(words, 8)) for _ in range(400)]
    path.write_text("\n".join(lines))
    return path


@pytest.fixture(scope="module")
def result(text, tmp_path_factory):
    settings = predictability.Settings(width=8, steps=20, batch=4, length=24, order=3, texts=3, text=str(text))
    return conduct(predictability, settings, tmp_path_factory.mktemp("lab"), report=lambda line: None)


def test_every_code_gives_its_text_back_and_is_as_long_as_the_model_says(result):
    rows = result["tables"]["texts"]
    assert [(row["model"], row["kind"]) for row in rows] == [(m, k) for m in ("transformer", "n-grams") for k in KINDS]
    for row in rows:
        assert row["given_back"]
        assert row["precision_bits"] < 1
        assert row["bits_over"] == row["coded_bits"] - row["model_bits"]
        assert -row["precision_bits"] <= row["bits_over"] <= row["precision_bits"] + 2
        assert row["coded_bytes"] == -(-row["coded_bits"] // 8)


def test_bits_are_told_per_byte_and_per_word(result):
    for row in result["tables"]["texts"]:
        assert row["bytes"] == 3 * 24
        assert row["bits_per_byte"] == pytest.approx(row["model_bits"] / 72)
        assert row["low"] < row["bits_per_byte"] < row["high"]
        assert row["bits_per_word"] > row["bits_per_byte"]


def test_kinds_of_text_are_what_they_are_called():
    rng = np.random.default_rng(0)
    drawn = {kind: SOURCE.draw(kind, rng, 40) for kind in KINDS}
    assert {len(text) for text in drawn.values()} == {40}
    first, second = map(int, drawn["counting"].split()[:2])
    assert second == first + 1
    assert drawn["repetition"][:24] == drawn["repetition"][16:]
    assert set(drawn["shuffled words"].split()[:-1]) <= set(SOURCE.words)
    assert drawn["text"] in " ".join(SOURCE.words * 3)
    assert drawn["repetition"][:16] in " ".join(SOURCE.words * 2)


def test_texts_become_ids_behind_a_space():
    assert SOURCE.ids(["ab0"]).tolist() == [[0, 1, 2, 27]]


def forecaster(vocab_size, length):
    config = architecture("llama").Config(vocab_size, 8, 1, 2, 2, 4, 16, length, tied=True)
    return forecasters.forecaster_of(Model.initialise("llama", config, 0, "numpy"))


@pytest.mark.parametrize("make", ["transformer", "n-grams"])
def test_forecasts_agree_with_what_texts_cost_in_one_pass(make):
    rng = np.random.default_rng(1)
    ids = rng.integers(0, 7, (5, 13)).astype(np.int32)
    model = forecaster(7, 12) if make == "transformer" else forecasters.counted(lambda step: ids, 7, 2, 3)
    forecast = model.begin(5)
    found = np.stack([forecast(ids[:, t]) for t in range(12)], axis=1)  # (5, 12, 7)
    assert found.sum(axis=-1) == pytest.approx(1, abs=1e-6)
    chosen = np.take_along_axis(found, ids[:, 1:, None], axis=-1)[..., 0]
    np.testing.assert_allclose(-np.log(chosen), model.nats(ids), rtol=1e-5)


def test_two_decoders_of_a_model_do_not_disturb_each_other():
    ids = np.random.default_rng(2).integers(0, 7, (2, 9)).astype(np.int32)
    model = forecaster(7, 8)
    one, two = model.begin(2), model.begin(2)
    code, _ = encoded(ids, one)
    np.testing.assert_array_equal(decoded(code, ids[:, 0], 8, two), ids)


def planted(result, change):
    """A result with some numbers set: {kind: bits per byte} with intervals of ±0.1."""
    found = copy.deepcopy(result)
    for row in found["tables"]["texts"]:
        row |= {"bits_over": -8.0, "given_back": True}
        middle = change[row["kind"]]
        row |= {"bits_per_byte": middle, "low": middle - 0.1, "high": middle + 0.1}
    return {"predictability": found}


FALLING = dict(zip(KINDS, (4.8, 4.0, 3.0, 1.0, 1.1), strict=True))


def verdict(results):
    return predictability.CLAIMS[0].judge(results).verdict


def test_the_claim_holds_where_every_kind_is_easier_than_those_before(result):
    assert verdict(planted(result, FALLING)) == "holds"
    assert verdict(planted(result, FALLING | {"shuffled words": 4.7})) == "undecidable at this scale"
    assert verdict(planted(result, FALLING | {"counting": 4.0})) == "fails"


def test_the_claim_fails_where_a_code_is_wrong_or_too_long(result):
    for change in ({"given_back": False}, {"bits_over": 9.5}, {"bits_over": -9.5}):
        results = planted(result, FALLING)
        results["predictability"]["tables"]["texts"][3] |= change
        assert verdict(results) == "fails"


def test_the_value_is_the_texts_bits_per_word(result):
    finding = predictability.CLAIMS[0].judge({"predictability": result})
    row = next(row for row in result["tables"]["texts"] if (row["model"], row["kind"]) == ("transformer", "text"))
    assert finding.value == row["bits_per_word"]
    assert finding.low < finding.value < finding.high
    assert math.isclose(finding.high / finding.value, row["high"] / row["bits_per_byte"])


def test_one_text_tells_no_interval():
    with pytest.raises(ValueError, match="texts=1"):
        predictability.Settings(texts=1)
