"""The run folder: a Hugging Face folder with what a run needs to go on beside it.

    config.json, model.safetensors, tokenizer.json   the model as of the last checkpoint
    best/                                            the same as of the lowest held-out loss
    run.toml                                         every setting
    data/                                            the tokens
    metrics.jsonl                                    one line a step
    training_state.safetensors                       weights, moments, step: what resuming reads

A checkpoint writes training_state.safetensors last. Whatever a kill leaves of the others is older, or will be written again.

A run that begins at another model copies its weights and tokenizer first, so it needs that model no more. One that learns
adapters of it does not copy it: its folder holds an adapter of PEFT's format, and goes on only where the model still lies.
"""

import dataclasses
import hashlib
import itertools
import json
import math
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from refllm import checkpoints
from refllm.array_api import Backend
from refllm.array_api import load as load_backend
from refllm.atomic import write_atomically
from refllm.checkpoints import adapter
from refllm.checkpoints.fingerprint import sha256
from refllm.models import architecture
from refllm.models.model import Model
from refllm.tokenizer import Tokenizer, train_bpe
from refllm.training import config as configs
from refllm.training import data, state_file
from refllm.training.config import RunConfig, TrainingConfig
from refllm.training.data import Corpus
from refllm.training.flat import unpack
from refllm.training.lora import adapt
from refllm.training.masking import Masking, masking_of
from refllm.training.state_file import Best
from refllm.training.step import Learner, State, first_state, learner, state_at

STATE = "training_state.safetensors"
MADE = ("run.toml", "model.safetensors", "config.json", adapter.CONFIG, "tokenizer.json", "tokenizer_config.json", STATE)
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
    masking: Masking | None = None  # how tokens are hidden; None: every token is guessed from those before it

    @property
    def architecture(self) -> ModuleType:
        """What computes the model, adapted or not."""
        return architecture(self.config.model["architecture"])

    @property
    def weights_dtype(self) -> str:
        """The dtype that the weights have while they are trained, or adapted."""
        return self.training.dtype if self.config.lora else self.training.state_dtype

    @property
    def training(self) -> TrainingConfig:
        return self.config.training

    @property
    def metrics_path(self) -> Path:
        return self.folder / "metrics.jsonl"

    @property
    def state_path(self) -> Path:
        return self.folder / STATE


def begin(folder: Path | str, config: RunConfig, backend: str | Backend | None = None, progress: Progress | None = None) -> Run:
    """Make a run folder: train the tokenizer or copy it, write the tokens. Nothing of it stays behind if that fails.

    Raises FileExistsError where there is a run or a model already, and ValueError or OSError for data that will not do.
    """
    folder = Path(folder)
    taken = [name for name in MADE if (folder / name).exists()]
    if "run.toml" in taken:
        raise FileExistsError(f"{folder} holds a run already; go on with it (refllm resume {folder}), or choose another folder.")
    if taken:
        raise FileExistsError(f"{folder} holds {', '.join(taken)} already; choose another folder for the run.")
    chosen = choose_backend(config, backend)
    config = dataclasses.replace(config, model=_identified(config.model) if config.source else config.model)
    config = dataclasses.replace(
        config,
        data=dataclasses.replace(config.data, path=_absolute(config.data.path), tokenizer=_absolute(config.data.tokenizer)),
        training=dataclasses.replace(config.training, backend=chosen.name, objective=configs.objective(config)),
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
            for name in MADE:
                (folder / name).unlink(missing_ok=True)
            shutil.rmtree(folder / "data", ignore_errors=True)
        raise


def reopen(folder: Path | str, backend: str | Backend | None = None, progress: Progress | None = None) -> Run:
    """Open a run folder to go on with it, finishing what `begin` had not when it was killed.

    Raises FileNotFoundError, ValueError where the model that it begins at is still needed, but is gone or has changed.
    """
    folder = Path(folder)
    if not (folder / "run.toml").is_file():
        raise FileNotFoundError(f"{folder} holds no run: there is no run.toml in it. Start one with refllm train.")
    config = configs.read(folder / "run.toml")
    if _needs_source(folder, config):
        _require_unchanged(folder, config)
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
    """Write the model as a Hugging Face folder; where adapters were learned, them alone, in PEFT's format."""
    folder.mkdir(exist_ok=True)
    learned = unpack(state.vector, run.learner.layout)
    if run.config.lora:
        base = Model(run.architecture, run.learner.config, run.learner.model.frozen, run.tokenizer)
        adapter.write(folder, base, learned, run.config.lora, run.config.source)
    else:
        checkpoints.save(folder, Model(run.architecture, run.learner.config, learned, run.tokenizer))


def model(run: Run, state: State) -> Model:
    """The model that a state holds, with its adapters added if it has some."""
    params = unpack(state.vector, run.learner.layout)
    if run.config.lora:
        params, _ = run.learner.model.adapted(params)
    return Model(run.architecture, run.learner.config, params, run.tokenizer)


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
    """The run in a folder with a run.toml, whose tokenizer, tokens and first weights are made where they are missing."""
    source = _source(config, backend) if _needs_source(folder, config) else None
    if not (folder / "tokenizer.json").exists():
        _make_tokenizer(config, source, progress).save(folder / "tokenizer.json")
    tokenizer = Tokenizer.load(folder / "tokenizer.json")
    fingerprint = hashlib.sha256((folder / "tokenizer.json").read_bytes()).hexdigest()
    if not (folder / "data" / "tokens.json").exists():
        data.prepare(data.read_texts(config.data.path), config.data.held_out, tokenizer, fingerprint, folder / "data")
    corpus = data.load(folder / "data", tokenizer, fingerprint)
    data.check(corpus, config.training.context)
    masking = masking_of(tokenizer, config.training.context) if configs.objective(config) == "masked" else None
    learning = _learner(folder, config, source, tokenizer)
    if masking and not learning.config.head:
        raise ValueError("the model has no masked-token head (model.head), so it cannot guess what is hidden; take one that has.")
    run = Run(folder, config, learning, tokenizer, corpus, backend, masking)
    if source and not config.lora and not run.state_path.exists():
        save_checkpoint(run, state_at(source.params, run.learner, backend), Best())
    return run


def _learner(folder: Path, config: RunConfig, source: Model | None, tokenizer: Tokenizer) -> Learner:
    """What learns: a new model, the one that the run begins at, or adapters of it."""
    module = architecture(config.model["architecture"])
    if not config.source:
        return learner(module, configs.model_config(config, tokenizer.vocab_size), config.training)
    sizes = source.config if source else checkpoints.load(folder, "numpy").config
    if tokenizer.vocab_size > sizes.vocab_size:
        raise ValueError(
            f"the tokenizer has {tokenizer.vocab_size} tokens, but {config.source} knows {sizes.vocab_size}; give its own."
        )
    if config.training.context > sizes.max_positions:
        raise ValueError(
            f"training.context={config.training.context} is too long: {config.source} has max_positions={sizes.max_positions}."
        )
    if config.lora and source:
        return learner(adapt(module, sizes, dict(source.params), config.lora), sizes, config.training)
    return learner(module, sizes, config.training)


def _identified(model: Mapping[str, Any]) -> dict[str, Any]:
    """[model] with all that says which checkpoint it is: where it lies, its architecture, the hash of its files.

    Raises ValueError where the hash given is another: the checkpoint is not the one that the configuration was made for.
    """
    path = Path(_absolute(model["from"]))
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; training goes on from a model's folder or file.")
    module, found = checkpoints.load(path, "numpy").architecture, sha256(path)
    if model.get("sha256", found) != found:
        raise ValueError(f"{path} is not the checkpoint that run.toml speaks of: its sha256 is {found}, not {model['sha256']}.")
    return {"architecture": module.__name__.rpartition(".")[2], "from": str(path), "sha256": found}


def _needs_source(folder: Path, config: RunConfig) -> bool:
    """Whether the model that the run begins at is to be read: always for adapters of it, else once."""
    whole = (folder / "tokenizer.json").exists() and (folder / STATE).exists()
    return bool(config.source) and (config.lora is not None or not whole)


def _require_unchanged(folder: Path, config: RunConfig) -> None:
    """Raise FileNotFoundError, ValueError where the model that the run begins at is gone or is another than it was."""
    if not Path(config.source).exists():
        raise FileNotFoundError(
            f"the run in {folder} begins at {config.source}, which is gone; put it back, or write where it is into run.toml."
        )
    _identified(config.model)


def _source(config: RunConfig, backend: Backend) -> Model:
    """The model that the run begins at, in the dtype in which it is trained or adapted."""
    if config.lora and adapter.is_adapter(config.source):
        raise ValueError(f"{config.source} is an adapter itself; make a whole model of it first: refllm merge.")
    return checkpoints.load(config.source, backend, config.training.dtype if config.lora else config.training.state_dtype)


def _make_tokenizer(config: RunConfig, source: Model | None, progress: Progress | None) -> Tokenizer:
    """The tokenizer that data.tokenizer names, that of the model the run begins at, or one trained on the text to learn."""
    if config.data.tokenizer:
        return Tokenizer.load(config.data.tokenizer)
    if source:
        if source.tokenizer is None:
            raise ValueError(
                f"{config.source} has no tokenizer; give the one it was trained with, --tokenizer or data.tokenizer."
            )
        return source.tokenizer
    train, _ = data.split(data.read_texts(config.data.path), config.data.held_out)
    special = ("<|endoftext|>", "<|mask|>") if configs.objective(config) == "masked" else ("<|endoftext|>",)
    return train_bpe(train, config.data.vocab_size, special, progress)


def _absolute(path: str) -> str:
    """The same place, also for a run that is resumed from another folder."""
    return str(Path(path).expanduser().resolve()) if path else ""
