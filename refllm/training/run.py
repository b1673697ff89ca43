"""The run folder: a Hugging Face folder with what a run needs to go on beside it.

    config.json, model.safetensors, tokenizer.json   the model as of the last checkpoint
    best/                                            the same as of the lowest held-out loss
    run.toml                                         every setting
    data/                                            the tokens
    metrics.jsonl                                    one line a step
    training_state.safetensors                       weights, moments, step: what resuming reads

A checkpoint writes training_state.safetensors last. Whatever a kill leaves of the others is older, or will be written again.
"""

import dataclasses
import hashlib
import itertools
import json
import math
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from refllm import checkpoints
from refllm.array_api import Backend
from refllm.array_api import load as load_backend
from refllm.atomic import write_atomically
from refllm.models import architecture
from refllm.models.model import Model
from refllm.tokenizer import Tokenizer, train_bpe
from refllm.training import config as configs
from refllm.training import data, state_file
from refllm.training.config import RunConfig, TrainingConfig
from refllm.training.data import Corpus
from refllm.training.flat import unpack
from refllm.training.state_file import Best
from refllm.training.step import Learner, State, first_state, learner

Progress = Callable[[int, int], None]  # merges learned, merges to learn


@dataclass(frozen=True)
class Run:
    """A run folder, opened."""

    folder: Path
    config: RunConfig
    learner: Learner
    tokenizer: Tokenizer
    corpus: Corpus
    backend: Backend

    @property
    def training(self) -> TrainingConfig:
        return self.config.training

    @property
    def metrics_path(self) -> Path:
        return self.folder / "metrics.jsonl"

    @property
    def state_path(self) -> Path:
        return self.folder / "training_state.safetensors"


def begin(folder: Path | str, config: RunConfig, backend: str | Backend | None = None, progress: Progress | None = None) -> Run:
    """Make a run folder: train the tokenizer or copy it, write the tokens. Nothing of it stays behind if that fails.

    Raises FileExistsError where there is a run or a model already, and ValueError or OSError for data that will not do.
    """
    folder = Path(folder)
    taken = [name for name in ("run.toml", "model.safetensors", "config.json", "tokenizer.json") if (folder / name).exists()]
    if "run.toml" in taken:
        raise FileExistsError(f"{folder} holds a run already; go on with it (refllm resume {folder}), or choose another folder.")
    if taken:
        raise FileExistsError(f"{folder} holds {', '.join(taken)} already; choose another folder for the run.")
    chosen = choose_backend(config, backend)
    config = dataclasses.replace(
        config,
        data=dataclasses.replace(config.data, path=_absolute(config.data.path), tokenizer=_absolute(config.data.tokenizer)),
        training=dataclasses.replace(config.training, backend=chosen.name),
    )
    new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        configs.write(config, folder / "run.toml")  # from here on a killed run can be resumed
        return _open(folder, config, chosen, progress)
    except BaseException:
        if new:
            shutil.rmtree(folder)
        else:
            for name in ("run.toml", "tokenizer.json"):
                (folder / name).unlink(missing_ok=True)
            shutil.rmtree(folder / "data", ignore_errors=True)
        raise


def reopen(folder: Path | str, backend: str | Backend | None = None, progress: Progress | None = None) -> Run:
    """Open a run folder to go on with it, finishing what `begin` had not when it was killed."""
    folder = Path(folder)
    if not (folder / "run.toml").is_file():
        raise FileNotFoundError(f"{folder} holds no run: there is no run.toml in it. Start one with refllm train.")
    config = configs.read(folder / "run.toml")
    return _open(folder, config, choose_backend(config, backend), progress)


def choose_backend(config: RunConfig, backend: str | Backend | None = None) -> Backend:
    """The backend named by the argument, else by REFLLM_BACKEND, else by the configuration, else the default one.

    Raises ValueError where it does not compute in training.dtype.
    """
    kept = None if os.environ.get("REFLLM_BACKEND") else config.training.backend  # load itself asks the environment
    chosen = load_backend(backend or kept or None)
    known = chosen.xp.dtypes()
    if config.training.dtype not in known:
        able = ", ".join(name for name in configs.DTYPES if name in known)
        raise ValueError(f"training.dtype={config.training.dtype!r} cannot be computed on {chosen.name}; it has {able}.")
    return chosen


def first_or_last_state(run: Run) -> tuple[State, Best]:
    """The state of the last checkpoint, or before the first step where there is none yet."""
    if not run.state_path.exists():
        return first_state(run.learner, run.backend), Best()
    return state_file.load(run.state_path, run.learner.layout, run.training.state_dtype, run.backend)


def save_checkpoint(run: Run, state: State, best: Best) -> None:
    """Write the model, then the state."""
    save_model(run, state, run.folder)
    state_file.save(run.state_path, state, run.learner.layout, best)


def save_model(run: Run, state: State, folder: Path) -> None:
    """Write the model as a Hugging Face folder."""
    folder.mkdir(exist_ok=True)
    checkpoints.save(folder, model(run, state))


def model(run: Run, state: State) -> Model:
    """The model that a state holds."""
    return Model(run.learner.model, run.learner.config, unpack(state.vector, run.learner.layout), run.tokenizer)


def cut_metrics(run: Run, step: int) -> None:
    """Take the lines after a step, and one torn by a kill, out of metrics.jsonl: the run is about to write them again."""
    if run.metrics_path.exists():
        lines = run.metrics_path.read_bytes().splitlines(keepends=True)
        kept = list(itertools.takewhile(lambda line: _step_of(line) <= step, lines))
        if len(kept) < len(lines):
            write_atomically(run.metrics_path, b"".join(kept))


def _step_of(line: bytes) -> float:
    """The step that a line of metrics.jsonl tells; beyond all steps for a line that is not whole."""
    try:
        return json.loads(line)["step"] if line.endswith(b"\n") else math.inf
    except (ValueError, TypeError, KeyError):
        return math.inf


def _open(folder: Path, config: RunConfig, backend: Backend, progress: Progress | None) -> Run:
    """The run in a folder with a run.toml, whose tokenizer and tokens are made where they are missing."""
    if not (folder / "tokenizer.json").exists():
        _make_tokenizer(config, progress).save(folder / "tokenizer.json")
    tokenizer = Tokenizer.load(folder / "tokenizer.json")
    fingerprint = hashlib.sha256((folder / "tokenizer.json").read_bytes()).hexdigest()
    if not (folder / "data" / "tokens.json").exists():
        data.prepare(data.read_texts(config.data.path), config.data.held_out, tokenizer, fingerprint, folder / "data")
    corpus = data.load(folder / "data", tokenizer, fingerprint)
    data.check(corpus, config.training.context)
    module = architecture(config.model["architecture"])
    learning = learner(module, configs.model_config(config, tokenizer.vocab_size), config.training)
    return Run(folder, config, learning, tokenizer, corpus, backend)


def _make_tokenizer(config: RunConfig, progress: Progress | None) -> Tokenizer:
    """The tokenizer that data.tokenizer names, or one trained on the training part of the text."""
    if config.data.tokenizer:
        return Tokenizer.load(config.data.tokenizer)
    train, _ = data.split(data.read_texts(config.data.path), config.data.held_out)
    return train_bpe(train, config.data.vocab_size, progress=progress)


def _absolute(path: str) -> str:
    """The same place, also for a run that is resumed from another folder."""
    return str(Path(path).expanduser().resolve()) if path else ""
