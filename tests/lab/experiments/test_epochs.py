"""The value of repeated data."""

import numpy as np
import pytest

from refllm.array_api import generator
from refllm.lab.experiment import conduct
from refllm.lab.experiments import epochs
from refllm.lab.materials import corpus, effective_data, text_models
from refllm.lab.verdict import FAILS, HOLDS, UNDECIDABLE

TINY = epochs.Settings(width=8, unique=512, epochs=(1, 2, 4, 16), seeds=2, batch=4, context=16, windows=12)


@pytest.fixture(scope="module")
def conducted(tmp_path_factory, text):
    folder = tmp_path_factory.mktemp("lab")
    settings = epochs.Settings(**{**vars(TINY), "text": text})
    return conduct(epochs, settings, folder, report=lambda line: None), folder / "epochs"


def test_one_epoch_is_worth_one_and_losses_stand_beside_each_other(conducted):
    result, place = conducted
    first, *_, last = result["tables"]["value"]
    assert first["effective_epochs"] == pytest.approx(1, rel=1e-9)
    assert first["fresh_loss"] == first["repeated_loss"]  # the first epoch is the same to the bit
    assert [row["epochs"] for row in result["tables"]["value"]] == [1, 2, 4, 16]
    repeated = [r["loss"] for r in result["tables"]["models"] if r["kind"] == "repeated" and r["characters"] == 16 * 512]
    assert last["repeated_loss"] == pytest.approx(np.mean(repeated))
    assert len(repeated) == 2
    assert (place / "value_of_epochs.png").is_file()
    assert epochs.judge({"epochs": result}).value == result["numbers"]["R*"]


def test_repeated_data_are_the_first_of_the_fresh_in_an_order_of_each_epochs_own():
    order = np.random.default_rng(0).permutation(1000)
    jobs = {kind: epochs.Job(kind, 5, TINY) for kind in ("fresh", "repeated")}
    read = {kind: [epochs.window_numbers(job, order, step, 8) for step in range(32)] for kind, job in jobs.items()}
    np.testing.assert_array_equal(np.concatenate(read["fresh"]), order[:128])
    np.testing.assert_array_equal(read["repeated"][:8], read["fresh"][:8])
    by_epoch = np.array(read["repeated"]).reshape(4, 32)
    for one in by_epoch:
        assert sorted(one) == sorted(order[:32])
    assert len({tuple(one) for one in by_epoch}) == 4


def test_every_seed_reads_in_an_order_of_its_own(monkeypatch, text):
    settings, read = epochs.Settings(**{**vars(TINY), "text": text}), {}

    def learned(config, batch, context, seed, batch_at, steps):
        read[seed] = np.concatenate([batch_at(step)[0] for step in range(8)])
        return iter(())

    monkeypatch.setattr(text_models, "learned", learned)
    for seed in (0, 5):
        epochs.train(epochs.Job("repeated", seed, settings))
    ids = corpus.load(text).train
    for seed, found in read.items():
        order = generator(seed, "reading order").permutation((len(ids) - 1) // 16)
        np.testing.assert_array_equal(found, corpus.windows(ids, order[:32] * 16, 16)[0])


def test_fresh_models_are_judged_at_every_number_of_epochs_and_between_them():
    assert epochs.fresh_steps(8, (1, 2, 4)) == [1, 2, 3, 4, 6, 8, 11, 16, 23, 32]
    assert 24 in epochs.fresh_steps(8, (1, 3, 4))


def judged(worth, low, high, until=64):
    row = {"epochs": 64, "effective_epochs": worth, "low": low, "high": high, "published": 16.1}
    numbers = {"R*": 9, "low": 8, "high": 10, "fitted_up_to_epoch": until, effective_data.RMS: 0.07, "R*_of_all_epochs": 6.21}
    return epochs.judge({"epochs": {"numbers": numbers, "tables": {"value": [row]}}})


def test_the_claim_is_judged_by_the_worth_of_the_most_epochs():
    assert judged(16, 12, 20).verdict == HOLDS
    assert judged(30, 20, 40).verdict == UNDECIDABLE
    assert judged(50, 40, 63).verdict == judged(33, 31.9, 70).verdict == judged(31, 30, 32).verdict == UNDECIDABLE
    assert judged(31, 30, 31.9).verdict == HOLDS
    assert judged(62, 58, 64).verdict == FAILS
    assert judged(16, 12, 20)[:3] == (9, 8, 10)


def test_the_finding_tells_the_misfit_and_where_the_model_over_fits():
    assert "misses D′ by 7 % (rms) up to 64 epochs." in judged(16, 12, 20).why
    why = judged(16, 12, 20, until=16).why
    assert "up to 16 epochs; after them the model over-fits, its loss rises, and with all epochs R* is 6.2." in why


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"epochs": (2, 4)}, r"epochs=\(2, 4\) must rise from 1"),
        ({"seeds": 1}, "seeds=1 must be at least 2"),
        ({"epochs": (1, 4, 2)}, r"epochs=\(1, 4, 2\) must rise from 1"),
        ({"epochs": (1,)}, r"epochs=\(1,\) must rise from 1, and be two at least"),
        ({"unique": 500}, r"unique=500 must be a multiple of batch · context = 64"),
        ({"unique": 6400}, r"16 epochs of 6,400 are compared with 102,400 fresh ones"),
    ],
)
def test_settings_that_cannot_be_are_refused(text, changed, message):
    with pytest.raises(ValueError, match=message):
        epochs.check(epochs.Settings(**{**vars(TINY), **changed}), corpus.load(text))


def test_the_fresh_characters_may_be_all_that_the_text_has():
    settings = epochs.Settings(**{**vars(TINY), "epochs": (1, 4)})
    ids = np.zeros(4 * 512 + 1, dtype=np.uint8)  # one more, which the last predicts
    epochs.check(settings, corpus.Text(ids, ids, "a", "a text"))
    with pytest.raises(ValueError, match="4 epochs of 512 are compared with 2,048 fresh ones"):
        epochs.check(settings, corpus.Text(ids[1:], ids, "a", "a text"))
