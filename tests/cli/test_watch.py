"""What is shown of a run: the level to beat, the moving line, and where a stopped run goes on."""

import io
import types

import numpy as np
import pytest
from rich.console import Console

from refllm.cli.plot import Level
from refllm.cli.watch import Best, Shown, best_evaluation, comparison, interrupted, moving_line, trigram
from refllm.models import ngram
from refllm.training.data import evaluation_batches, evaluation_begins
from refllm.training.loop import Progress
from refllm.training.run import reopen

PROGRESS = Progress(40, 100, 3.5, 1.0, 1e-3, 12_345.0, 75.0, held_out_loss=3.25, bits_per_byte=1.625, best=True)


def written(shown, **options):
    console = Console(file=io.StringIO(), width=120, **options)
    shown(console)
    return console.file.getvalue()


def test_the_trigram_is_judged_on_the_tokens_of_the_models_evaluation(copied_run):
    settings = (copied_run / "run.toml").read_text()
    assert "evaluation_windows = 128\n" in settings
    (copied_run / "run.toml").write_text(settings.replace("evaluation_windows = 128\n", "evaluation_windows = 3\n"))
    run = reopen(copied_run)
    targets = np.concatenate([t for _, t in evaluation_batches(run.corpus, context=16, batch=2, windows=3)])
    assert targets.shape == (3, 16)
    counted = ngram.train(run.corpus.train, 3, run.tokenizer.vocab_size)
    stream = np.concatenate([run.corpus.train, run.corpus.held_out])
    begins = evaluation_begins(run.corpus, context=16, windows=3) + len(run.corpus.train)
    nats = []
    for begin, window in zip(begins, targets, strict=True):
        for i, target in enumerate(window, start=begin + 1):
            nats += list(-ngram.log_probabilities(counted, [target], context=stream[:i]))
    level = trigram(run)
    assert level.loss == pytest.approx(np.mean(nats), rel=1e-12)
    assert level.bits_per_byte == pytest.approx(np.sum(nats) / np.log(2) / run.corpus.token_bytes[targets].sum(), rel=1e-12)


def test_the_best_evaluation_is_the_lowest_of_all_lines(finished_run):
    best = best_evaluation(reopen(finished_run))
    assert best.step in (3, 6)
    assert f"this model, step {best.step}" in written(lambda console: console.print(comparison(best, None)))


def test_a_comparison_says_how_far_apart_and_which_is_better():
    level = Level("trigram", 3.75, 1.875)
    told = written(lambda console: console.print(comparison(Best(40, 3.25, 1.625), level)))
    assert "0.500 nats/token better" in told
    told = written(lambda console: console.print(comparison(Best(40, 4.0, 2.0), level)))
    assert "0.250 nats/token worse" in told


def test_a_row_has_every_number_and_without_a_terminal_the_time_left():
    row = written(lambda console: Shown(console, None).show(PROGRESS)).split()
    assert row == ["40", "3.500", "3.250", "1.625", "12,345", "1:15", "min", "left"]
    assert written(lambda console: Shown(console, None).show(PROGRESS._replace(held_out_loss=None))) == ""


def test_on_a_terminal_the_moving_line_tells_how_far_the_run_is():
    told = written(lambda console: console.print(moving_line(PROGRESS)))
    for words in ("step 40 of 100", "3.500 nats/token", "12,345 tokens/s", "1:15 min left"):
        assert words in told


def test_a_stopped_run_says_from_where_it_goes_on(tmp_path):
    run = types.SimpleNamespace(
        folder=tmp_path, state_path=tmp_path / "state", training=types.SimpleNamespace(checkpoint_every=30)
    )
    assert "no checkpoint was made yet" in interrupted(run, PROGRESS).plain
    run.state_path.touch()
    assert "the checkpoint of step 30 is whole" in interrupted(run, PROGRESS).plain
    assert f"refllm resume {tmp_path}" in interrupted(run, PROGRESS).plain
    assert "the checkpoint it began from is whole" in interrupted(run, None).plain
