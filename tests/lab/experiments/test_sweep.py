"""Models of many sizes on one text."""

import json
import math
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import threadpoolctl

from refllm.lab.experiment import conduct
from refllm.lab.experiments import sweep
from refllm.lab.fits.runs import read_runs
from refllm.lab.materials import text_models
from refllm.lab.running.pool import each
from refllm.models import accounting, llama

TINY = sweep.Settings(
    widths=(4, 8),
    seeds=2,
    reseeded=4,
    steps=24,
    batch=2,
    context=16,
    tuned=(4, 8),
    rates=(2e-3, 8e-3),
    tuning_steps=8,
    snapshots=3,
    windows=8,
)


def silent(line):
    pass


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text("".join(f"line {i} of a text that repeats itself\n" for i in range(400)))
    return str(path)


@pytest.fixture(scope="module")
def conducted(tmp_path_factory, text):
    folder = tmp_path_factory.mktemp("lab")
    settings = replace(TINY, text=text)
    return conduct(sweep, settings, folder, report=silent), folder / "sweep", settings


def test_every_size_and_seed_is_judged_along_the_way(conducted):
    result, _, _ = conducted
    rows = result["tables"]["runs"]
    assert [(row["width"], row["seed"], row["tokens"]) for row in rows] == [
        (d, s, steps * 32) for d, s in ((4, 0), (4, 1), (8, 0)) for steps in (12, 17, 24)
    ]
    assert all(0 < row["loss"] < math.log(60) for row in rows)
    assert len({row["loss"] for row in rows}) == len(rows)


def test_a_sweep_is_a_table_that_can_be_fitted(conducted):
    result, place, _ = conducted
    runs = read_runs(place / "runs.csv")
    assert runs.unit == "nats/character"
    assert len(set(runs.run)) == 3
    np.testing.assert_allclose(runs.loss, [row["loss"] for row in result["tables"]["runs"]])


def test_flops_and_parameters_are_those_that_accounting_counts(conducted):
    (row, *_), settings = conducted[0]["tables"]["runs"], conducted[2]
    vocab = sweep.corpus.load(settings.text).vocab_size
    config = text_models.config_of(4, vocab, settings.context)
    assert row["parameters"] == accounting.parameters(llama, config).total
    assert row["non_embedding"] == row["parameters"] - vocab * 4
    flops = accounting.forward_flops(llama, config, 8)  # a causal query sees half of the context on average
    assert row["flops"] == 3 * flops.total * row["tokens"]
    assert row["flops_attention"] == 3 * flops.attention * row["tokens"]
    assert row["flops_head"] == 3 * flops.head * row["tokens"]


def test_losses_are_those_of_the_running_mean_and_of_the_last_weights(conducted):
    (*_, row), settings = conducted[0]["tables"]["runs"], conducted[2]
    text = sweep.corpus.load(settings.text)
    config = text_models.config_of(row["width"], text.vocab_size, settings.context)
    task = sweep.Task(row["width"], row["seed"], row["learning_rate"], settings.steps, settings)
    sizes = {"batch": settings.batch, "context": settings.context}
    training = sweep.training_of(task)
    steps, gain = [settings.steps], settings.gain
    (model,) = sweep.learn("llama", config, training, lambda k: sweep.corpus.batch(text.train, 0, k, **sizes), steps, gain=gain)
    windows = sweep.corpus.evaluation(text.held_out, count=settings.windows, context=settings.context)
    assert row["loss"] == pytest.approx(text_models.loss_of(model.averaged, config, windows), rel=1e-6)
    assert row["last_weights_loss"] == pytest.approx(text_models.loss_of(model.raw, config, windows), rel=1e-6)


def test_an_interrupted_sweep_goes_on_where_it_stopped(conducted, tmp_path, text):
    result, place, settings = conducted
    models = place / "models"
    kept, gone = models / "d4-seed0.json", models / "d8-seed0.json"
    before = kept.stat().st_mtime_ns
    gone.unlink()
    (place / "results.json").unlink()
    again = conduct(sweep, settings, place.parent, report=silent)
    assert kept.stat().st_mtime_ns == before
    assert again["tables"]["runs"] == result["tables"]["runs"]


PROGRAM = """
import os, signal, sys
from pathlib import Path
from refllm.lab.experiments import sweep
from refllm.lab.materials import text_models
from refllm.lab.running.board import watching
from refllm.lab.experiment import conduct

told = []

def dying(line):
    told.append(line)
    if len(told) == 2:  # the rates are found, and one model is there
        os.kill(os.getpid(), signal.SIGKILL)

if __name__ == "__main__":
    with watching():
        conduct(sweep, SETTINGS, Path(sys.argv[1]), 2, dying)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_a_sweep_that_is_killed_between_tasks_goes_on_and_finds_the_same(conducted, tmp_path):
    _, place, settings = conducted
    program = tmp_path / "program.py"
    program.write_text(PROGRAM.replace("SETTINGS", f"sweep.{settings!r}"))
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
    done = subprocess.run([sys.executable, program, tmp_path / "lab"], env=env, timeout=60)
    assert done.returncode == -signal.SIGKILL
    models = tmp_path / "lab" / "sweep" / "models"
    kept = {path: path.stat().st_mtime_ns for path in models.glob("*.json")}
    assert 1 <= len(kept) < 3
    assert not (tmp_path / "lab" / "sweep" / "results.json").exists()
    conduct(sweep, settings, tmp_path / "lab", report=silent)
    assert (tmp_path / "lab" / "sweep" / "runs.csv").read_bytes() == (place / "runs.csv").read_bytes()
    assert {path: path.stat().st_mtime_ns for path in kept} == kept  # what was done was not done again
    assert {path.suffix for path in (tmp_path / "lab").rglob("*.*")} == {".json", ".csv", ".png", ".svg"}


def test_a_sweep_judges_branches_where_it_cools(conducted, tmp_path, text):
    settings = replace(conducted[2], widths=(4,), seeds=1, cooldown=0.25)
    rows = conduct(sweep, settings, tmp_path, report=silent)["tables"]["runs"]
    plain = [row for row in conducted[0]["tables"]["runs"] if row["run"] == "d4-seed0"]
    assert [row["flops"] for row in rows] == [row["flops"] for row in plain]
    for row, model in zip(rows, snapshot_losses(settings, rows[0]["learning_rate"]), strict=True):
        assert {name: row[name] for name in model} == model
        assert len(set(model.values())) == 3


def snapshot_losses(settings, rate):
    """The losses of every snapshot of the first model, by the trainer itself."""
    text = sweep.corpus.load(settings.text)
    windows = sweep.corpus.evaluation(text.held_out, count=settings.windows, context=settings.context)
    config = text_models.config_of(4, text.vocab_size, settings.context)
    training = sweep.training_of(sweep.Task(4, 0, rate, settings.steps, settings))
    sizes = {"batch": settings.batch, "context": settings.context}
    options = {"gain": settings.gain, "cooldown": settings.cooldown}
    with threadpoolctl.threadpool_limits(1):  # as in a pool: more threads add up in another order
        models = sweep.learn(
            "llama", config, training, lambda k: sweep.corpus.batch(text.train, 0, k, **sizes), (12, 17, 24), **options
        )
        for model in models:
            weights = {"loss": model.cooled, "averaged_loss": model.averaged, "last_weights_loss": model.raw}
            yield {name: text_models.loss_of(params, config, windows) for name, params in weights.items()}


def test_a_tasks_cost_grows_with_its_steps_and_its_arithmetic():
    small, long, wide = (
        sweep.cost(sweep.Task(d, 0, 0.0, steps, sweep.Settings())) for d, steps in ((12, 100), (12, 300), (96, 100))
    )
    assert long == pytest.approx(3 * small)
    assert 5 < wide / small < 10  # 84.8 s to 11.8 s, as the default sweep took on two cores of an AMD EPYC


def test_tasks_costs_are_their_own_and_foretell_what_follows_the_search(tmp_path, text, monkeypatch):
    opened = []

    def recorded(function, tasks, workers, folder, executor, *, costs, later=0.0):
        widths = [task.width for _, task in tasks]
        assert widths == sorted(widths, reverse=True)  # the longest first
        opened.append((costs == [sweep.cost(task) for _, task in tasks], later, sum(costs)))
        yield from each(function, tasks, workers, folder, executor)

    monkeypatch.setattr(sweep, "each", recorded)
    conduct(sweep, replace(TINY, text=text), tmp_path, report=silent)
    (own, later, _), (owned, nothing, models) = opened
    assert own
    assert owned
    assert (later, nothing) == (models, 0)


def test_a_rates_loss_is_that_of_the_models_recipe_at_its_last_step(conducted):
    result, place, settings = conducted
    for row in result["tables"]["tuning"]:
        width, rate = row["width"], row["learning_rate"]
        with threadpoolctl.threadpool_limits(1):
            *_, last = sweep.train(sweep.Task(width, 0, rate, settings.tuning_steps, settings))["rows"]
        assert row["loss"] == last["loss"]
        (found,) = json.loads((place / "tuning" / f"d{width}-rate{rate:g}.json").read_text())["rows"]  # judged once
        assert found["loss"] == last["loss"]


def test_rates_follow_a_power_law_through_the_two_widths():
    tuning = sweep.Tuning((24, 96), (8e-3, 2e-3), [])
    assert [tuning.rate(d) for d in (24, 48, 96)] == pytest.approx([8e-3, 4e-3, 2e-3])
    assert tuning.exponent == -1


def test_the_best_rate_lies_at_the_parabolas_bottom_within_what_was_tried():
    rates = (1e-3, 2e-3, 4e-3)
    assert sweep.lowest(rates, [1.0, 0.9, 1.0]) == pytest.approx(2e-3)
    assert sweep.lowest(rates, [1.0, 0.8, 0.7]) == pytest.approx(4e-3)
    assert sweep.lowest(rates, [0.7, 0.9, 0.8]) == pytest.approx(1e-3)
    assert sweep.lowest((1e-3, 2e-3), [0.7, 0.9]) == 1e-3


def test_snapshots_end_at_the_last_step_and_grow_by_the_root_of_two():
    assert sweep.snapshot_steps(64, 5) == [16, 23, 32, 45, 64]
    assert sweep.snapshot_steps(2, 6) == [1, 2] or sweep.snapshot_steps(2, 6)[-1] == 2


def test_beta2_has_the_same_half_life_in_tokens_at_any_batch():
    small, large = (
        sweep.training_of(sweep.Task(8, 0, 1e-3, 10, sweep.Settings(batch=b))).beta2 ** (1 / (b * 64)) for b in (4, 16)
    )
    assert small == pytest.approx(large, rel=1e-12)
