"""A small model trained in memory."""

from dataclasses import replace

import numpy as np
import pytest

from refllm.array_api import generator, load, use
from refllm.lab.running import progress
from refllm.lab.running.learn import learn, spread
from refllm.models import gpt2
from refllm.training.config import TrainingConfig
from refllm.training.step import first_state, learner, train_step

CONFIG = gpt2.Config(7, d_model=4, n_layers=1, n_heads=2, max_positions=6, d_ff=8)
TRAINING = TrainingConfig(context=6, batch=3, steps=8, learning_rate=1e-2, schedule="constant", seed=3)


def batch_at(step):
    ids = generator(1, "test", step).integers(0, 7, (3, 7)).astype(np.int32)
    return ids[:, :-1], ids[:, 1:]


def vectors(training=TRAINING):
    """The weights after every step, by the trainer itself."""
    learns, backend = learner(gpt2, CONFIG, training), load("numpy")
    state = first_state(learns, backend)
    for step in range(training.steps):
        state, _ = train_step(state, [batch_at(step)], learns)
        yield state.vector.copy()


def flat(params):
    return np.concatenate([params[name].ravel() for name in learner(gpt2, CONFIG, TRAINING).layout.names])


def test_snapshots_are_the_trainers_weights_and_stay_as_they_were():
    with use("numpy"):
        found = list(learn("gpt2", CONFIG, TRAINING, batch_at, [1, 4, 8]))
    every = list(vectors())
    assert [(s.step, s.tokens) for s in found] == [(1, 18), (4, 72), (8, 144)]
    for snapshot in found:
        np.testing.assert_array_equal(flat(snapshot.raw), every[snapshot.step - 1])


@pytest.mark.parametrize("horizon", [0.0, 9.0])
def test_the_running_mean_weighs_step_s_by_the_power_s_to_the_gamma(horizon):
    """Unrolled, βₜ gives weights s^γ up to the discretisation: here by the product of the factors that follow each step."""
    with use("numpy"):
        (found,) = learn("gpt2", CONFIG, TRAINING, batch_at, [8], horizon=horizon)
    betas = [(1 - 1 / t) ** (1 + horizon) for t in range(1, 9)]
    weights = [(1 - betas[s]) * np.prod(betas[s + 1 :]) for s in range(8)]
    assert sum(weights) == pytest.approx(1, abs=1e-12)
    if horizon == 0:
        np.testing.assert_allclose(weights, 1 / 8, atol=1e-12)  # the plain mean of all steps
    expected = sum(w * v.astype(np.float64) for w, v in zip(weights, vectors(), strict=True))
    np.testing.assert_allclose(flat(found.averaged), expected, atol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("share", "decays"), [(0.25, {2: 1, 4: 1, 8: 2}), (0.5, {2: 1, 4: 2, 8: 4}), (1.0, {2: 2, 4: 4, 8: 8})])
def test_a_branch_is_bit_for_bit_the_run_whose_rate_falls_over_its_last_share(share, decays, dtype):
    training = replace(TRAINING, warmup_steps=2, dtype=dtype)
    with use("numpy"):
        found = list(learn("gpt2", CONFIG, training, batch_at, list(decays), cooldown=share))
    for snapshot in found:
        S = snapshot.step
        alone = replace(training, steps=S, schedule="wsd", decay_steps=decays[S], final_fraction=0.0)
        *_, last = vectors(alone)
        np.testing.assert_array_equal(flat(snapshot.cooled), last)
        assert np.abs(last - flat(snapshot.raw)).max() > 1e-5 or decays[S] == 1  # a decay of one step changes no rate


def test_branches_leave_the_trunk_as_it_is():
    with use("numpy"):
        bare, branched = (list(learn("gpt2", CONFIG, TRAINING, batch_at, [3, 8], cooldown=share)) for share in (0.0, 0.5))
    for one, other in zip(bare, branched, strict=True):
        assert one.cooled is None
        assert (one.step, one.tokens) == (other.step, other.tokens)
        np.testing.assert_array_equal(flat(one.raw), flat(other.raw))
        np.testing.assert_array_equal(flat(one.averaged), flat(other.averaged))


def test_branches_need_a_share_and_a_constant_rate():
    for share in (-0.1, 1.5):
        with pytest.raises(ValueError, match=f"cooldown={share} must be a share of the steps"):
            next(learn("gpt2", CONFIG, TRAINING, batch_at, [8], cooldown=share))
    with pytest.raises(ValueError, match="leave a run at a constant rate; training.schedule is 'wsd'"):
        next(learn("gpt2", CONFIG, replace(TRAINING, schedule="wsd"), batch_at, [8], cooldown=0.2))


def test_updates_of_trunk_and_branches_are_told_as_they_are_made(tmp_path, monkeypatch):
    written = []
    monkeypatch.setattr(progress, "INTERVAL", 0.0)
    monkeypatch.setattr(progress.Teller, "write", lambda teller, create=0: written.append(teller.told))
    with use("numpy"), progress.telling(tmp_path / "task.progress"):
        for _ in learn("gpt2", CONFIG, TRAINING, batch_at, [8, 4, 8], cooldown=0.5):
            pass
    begun, *made = written
    assert begun == progress.Told()
    assert [(told.done, told.of, told.models) for told in made] == [(n, 14, 1) for n in range(1, 15)]
    assert all(1 < told.loss < 3 for told in made)  # near ln 7


def test_snapshots_outside_the_steps_are_refused():
    for steps in ([], [0], [9]):
        with pytest.raises(ValueError, match="must be steps from 1 to training.steps=8"):
            next(learn("gpt2", CONFIG, TRAINING, batch_at, steps))


def test_divergence_is_told():
    training = TrainingConfig(context=6, batch=3, steps=60, learning_rate=1e30, schedule="constant", clip=0.0)
    with use("numpy"), np.errstate(all="ignore"), pytest.raises(ValueError, match="training diverged; lower its learning rate"):
        list(learn("gpt2", CONFIG, training, batch_at, [60]))


def test_first_weights_can_keep_a_vectors_length():
    config = gpt2.Config(70, d_model=32, n_layers=1, n_heads=2, max_positions=60, d_ff=64)
    own, wide = gpt2.initialise(config, 0), spread("gpt2", config, 0, 1.0)
    for name, values in wide.items():
        if values.ndim == 1:
            np.testing.assert_array_equal(values, own[name])
        else:
            wanted = 0.1 if name.endswith("embedding") else values.shape[0] ** -0.5
            assert values.std() == pytest.approx(wanted, rel=1e-5)
            np.testing.assert_allclose(values / values.std(), own[name] / own[name].std(), rtol=1e-4)
    with use("numpy"):
        (found,) = learn("gpt2", CONFIG, TRAINING, batch_at, [1], gain=2.0)
    start = np.concatenate(
        [spread("gpt2", CONFIG, TRAINING.seed, 2.0)[n].ravel() for n in learner(gpt2, CONFIG, TRAINING).layout.names]
    )
    assert 0 < np.abs(flat(found.raw) - start).max() < 0.03  # one step away
