"""Bits of texts that are easy and hard to predict, and their codes."""

import copy
import math

import numpy as np
import pytest

from refllm.checkpoints import save
from refllm.lab.experiment import conduct
from refllm.lab.experiments import predictability
from refllm.lab.materials import forecasters
from refllm.lab.materials.arithmetic_coder import TOTAL
from refllm.lab.materials.forecasters import Forecaster
from refllm.lab.materials.text_kinds import DIGITS, KINDS, LETTERS, Source
from refllm.models import architecture
from refllm.models.model import Model
from refllm.tokenizer import train_bpe


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
        assert row["bits_over"] == row["coded_bits"] - row["predicted_bits"]
        assert row["predicted_bits"] == pytest.approx(row["model_bits"], rel=1e-5)
        assert -row["precision_bits"] <= row["bits_over"] <= row["precision_bits"] + 2
        assert row["coded_bytes"] == -(-row["coded_bits"] // 8)


def test_a_decoder_with_other_probabilities_does_not_give_the_texts_back():
    source, V = Source(("ab", "cde"), "".join(sorted({*LETTERS, *DIGITS}))), 37
    runs = iter(range(2))

    def begin(rows, length):
        p = np.ones((rows, V))
        p[:, 20 * next(runs)] = 100
        return lambda last: p / p.sum(axis=1, keepdims=True)

    model = Forecaster(begin, lambda rows: [np.full(len(row) - 1, math.log(V)) for row in rows], source.ids, V)
    row, _ = predictability.measured(model, source, "text", predictability.Settings(texts=4, length=20))
    assert row["given_back"] is False


def test_bits_are_told_per_byte_and_per_word(result):
    for row in result["tables"]["texts"]:
        assert 3 * 16 <= row["bytes"] <= 3 * 24
        assert row["tokens"] == row["bytes"]  # a character each
        assert row["bits_per_byte"] == pytest.approx(row["model_bits"] / row["bytes"], rel=0.05)
        assert row["low"] < row["bits_per_byte"] < row["high"]
        assert row["bits_per_word"] > row["bits_per_byte"]
    one = {row["kind"]: row["bytes"] for row in result["tables"]["texts"]}
    assert one["random letters"] == 3 * 24
    assert one["shuffled words"] == one["text"] == one["repetition"]


def test_each_kind_is_compared_with_the_next(result):
    bits = {(row["model"], row["kind"]): row["bits_per_byte"] for row in result["tables"]["texts"]}
    rows = result["tables"]["comparisons"]
    assert [(row["harder"], row["easier"]) for row in rows] == 2 * list(zip(KINDS, KINDS[1:], strict=False))
    for row in rows:
        assert row["difference"] == pytest.approx(bits[row["model"], row["harder"]] - bits[row["model"], row["easier"]])
        assert row["low"] < row["difference"] < row["high"]


def test_texts_are_compared_in_pairs(text):
    settings = predictability.Settings(steps=20, batch=4, length=24, order=1, texts=5, text=str(text))
    row = predictability.judged(("n-grams", settings))["comparisons"][1]
    assert (row["harder"], row["easier"]) == ("shuffled words", "text")  # of the same letters, all that order 1 knows of
    assert (row["difference"], row["low"], row["high"]) == pytest.approx((0, 0, 0), abs=1e-12)


def test_models_are_made_and_trained_as_the_settings_say(monkeypatch):
    asked = {}
    for name in ("transformer", "counted"):
        monkeypatch.setattr(forecasters, name, lambda rows_at, *_, name=name, **given: asked.update({name: (rows_at, given)}))
    s = predictability.Settings(width=10, steps=11, batch=12, length=13, order=14, seed=15)
    source = Source(("ab", "cde"), "".join(sorted({*LETTERS, *DIGITS})))
    for name in ("transformer", "n-grams"):
        predictability.forecaster(name, source, s)
    assert asked["transformer"][1] == {"length": 13, "steps": 11, "width": 10, "seed": 15}
    assert asked["counted"][1] == {"steps": 11, "order": 14}
    rows_at = asked["counted"][0]
    assert len(rows_at(0)) == 12
    assert rows_at(0) == asked["transformer"][0](0) != rows_at(1)
    seen = {len(row) for step in range(5) for row in rows_at(step)}
    assert max(seen) == 1 + 13
    digits = set(source.ids("0123456789")[1:])
    assert any(digits & set(row) for step in range(5) for row in rows_at(step))  # the last kind is learned too


def test_a_random_letter_takes_at_least_its_entropy(result):
    least = result["numbers"]["bits_of_a_random_letter"]
    assert 2**least == pytest.approx(27)
    for row in result["tables"]["texts"]:
        assert row["kind"] != "random letters" or row["high"] > least


def test_an_interval_is_the_normal_one_of_a_mean():
    found = predictability.interval(np.array([1.0, 2.0, 6.0]), "bits")
    reach = 1.959963984540054 * math.sqrt((4 + 1 + 9) / 2 / 3)
    assert found == pytest.approx({"bits": 3.0, "low": 3 - reach, "high": 3 + reach})


@pytest.mark.parametrize("vocab_size", [300, 40_000])
def test_the_users_model_is_asked_in_place_of_those_trained_here(text, tmp_path, vocab_size):
    tokenizer = train_bpe(text.read_text()[:2000], 300, ["<|endoftext|>"])
    config = architecture("llama").Config(vocab_size, 8, 1, 2, 2, 4, 16, 64)
    save(tmp_path / "mine", Model.initialise("llama", config, 0, "numpy", tokenizer))
    settings = predictability.Settings(checkpoint=str(tmp_path / "mine"), length=24, texts=2, text=str(text))
    found = predictability.run(settings, tmp_path / "lab", 1, lambda line: None)
    rows = found["tables"]["texts"]
    assert [(row["model"], row["kind"]) for row in rows] == [("checkpoint", kind) for kind in KINDS]
    for row in rows:
        assert row["given_back"]
        assert -row["precision_bits"] <= row["bits_over"] <= 2 + row["precision_bits"]
        assert row["predicted_bits"] == pytest.approx(row["model_bits"], rel=1e-5)
        assert row["precision_bits"] > row["tokens"] * math.log2(TOTAL / (TOTAL - vocab_size)) * 0.999
        assert row["tokens"] <= row["bytes"]
        assert row["model_bits"] == pytest.approx(row["tokens"] * math.log2(vocab_size), rel=0.02)  # it has learned nothing
    assert predictability.CLAIMS[0].judge({"predictability": found}).verdict != "holds"


def test_words_that_are_asked_about_need_not_be_all_that_were_learned_from(monkeypatch):
    both, one = (Source(words, "".join(sorted({*LETTERS, *DIGITS}))) for words in (("aaaa", "bbbb"), ("aaaa",)))
    settings = predictability.Settings(steps=20, batch=5, length=24, order=3, texts=3)

    def bits(learned_from, asked_about):
        monkeypatch.setattr(predictability, "sources", lambda *_: (learned_from, asked_about))
        rows = predictability.judged(("n-grams", settings))["texts"]
        return next(row["bits_per_byte"] for row in rows if row["kind"] == "text")

    assert bits(both, one) < 2 < bits(one, both)


def planted(result, bits, reach=0.1):
    """A result in which both models find the kinds so many bits per byte hard, with differences known up to a reach."""
    found = copy.deepcopy(result)
    for row in found["tables"]["texts"]:
        middle = bits[row["kind"]]
        row |= {"bits_over": 1.0, "precision_bits": 0.5, "given_back": True, "model_bits": 1e5, "predicted_bits": 1e5}
        row |= {"bits_per_byte": middle, "low": middle - 0.1, "high": middle + 0.1}
    for row in found["tables"]["comparisons"]:
        middle = bits[row["harder"]] - bits[row["easier"]]
        row |= {"difference": middle, "low": middle - reach, "high": middle + reach}
    return {"predictability": found}


FALLING = dict(zip(KINDS, (4.8, 4.0, 3.0, 1.0, 0.5), strict=True))


def verdict(results):
    return predictability.CLAIMS[0].judge(results).verdict


@pytest.mark.parametrize("kind", KINDS[1:])
def test_the_claim_holds_where_every_kind_is_easier_than_the_one_before(result, kind):
    before = FALLING[KINDS[KINDS.index(kind) - 1]]
    assert verdict(planted(result, FALLING)) == "holds"
    assert verdict(planted(result, FALLING | {kind: before - 0.05})) == "undecidable at this scale"
    assert verdict(planted(result, FALLING | {kind: before + 0.05})) == "undecidable at this scale"
    assert verdict(planted(result, FALLING | {kind: before + 0.15})) == "fails"


def test_the_claim_fails_where_random_letters_take_less_than_their_entropy(result):
    assert verdict(planted(result, FALLING | {"random letters": 4.66})) == "holds"
    assert verdict(planted(result, FALLING | {"random letters": 4.65})) == "fails"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"given_back": False}, "fails"),
        ({"bits_over": 2.5}, "holds"),
        ({"bits_over": 2.6}, "fails"),
        ({"bits_over": -0.5}, "holds"),
        ({"bits_over": -0.6}, "fails"),
        ({"predicted_bits": 1e5 + 9}, "holds"),
        ({"predicted_bits": 1e5 + 11}, "fails"),
        ({"predicted_bits": 1e5 - 11}, "fails"),
    ],
)
def test_the_claim_fails_where_any_code_is_wrong_or_of_another_length(result, change, expected):
    for row in (3, 8):
        results = planted(result, FALLING)
        results["predictability"]["tables"]["texts"][row] |= change
        assert verdict(results) == expected


def test_the_n_grams_do_not_decide_the_order(result):
    results = planted(result, FALLING)
    for row in results["predictability"]["tables"]["comparisons"][4:]:
        row |= {"low": -2.0, "high": -1.0}
    for row in results["predictability"]["tables"]["texts"][5:]:
        row |= {"low": 0.0, "high": 0.1}
    assert verdict(results) == "holds"


def test_the_value_is_the_texts_bits_per_word(result):
    finding = predictability.CLAIMS[0].judge({"predictability": result})
    row = next(row for row in result["tables"]["texts"] if (row["model"], row["kind"]) == ("transformer", "text"))
    assert finding.value == row["bits_per_word"]
    assert finding.low < finding.value < finding.high
    assert finding.high / finding.value == pytest.approx(row["high"] / row["bits_per_byte"])
    assert finding.low / finding.value == pytest.approx(row["low"] / row["bits_per_byte"])


def test_the_finding_names_the_least_clear_step(result):
    finding = predictability.CLAIMS[0].judge(planted(result, FALLING))
    assert "; counting takes 0.50 [0.40, 0.60] fewer than repetition; 10 of 10 codes decode to their texts" in finding.why


@pytest.mark.parametrize(
    ("change", "says"),
    [({"texts": 1}, "texts=1 give no interval"), ({"length": 1}, "length=1 must be"), ({"order": 0}, "order=0 must be")],
)
def test_settings_that_measure_nothing_are_an_error(change, says):
    with pytest.raises(ValueError, match=says):
        predictability.Settings(**change)
