"""The experiments by name. A new one is a module as `experiment.Experiment` describes, and a line here."""

import importlib
from typing import Any

EXPERIMENTS = {
    "sweep": "Train models of many sizes on one text and record their losses.",
    "emergence": "Train several sizes on facts and additions: smooth losses, sharp scores.",
    "predictability": "Measure bits per word of easy and hard texts, and compress them to as many.",
    "masked": "Sum the probabilities of all texts under an autoregressive and a masked model.",
    "rare": "Train several sizes on common and rare facts: which sizes recall the rare ones.",
    "repetition": "Sample completions from several sizes, and count those that end in loops.",
    "chains": "Train models to count and to sum digits, without intermediate steps: accuracy by length.",
    "agents": "Let models call a calculator over many steps, alone, with retries and with checks.",
    "keyboard": "Compare n-gram tables and transformers of equal size: where their losses cross.",
    "epochs": "Train on the same text for up to 64 epochs: what repeated data are worth.",
    "collapse": "Train generations of models on text that earlier ones sampled.",
    "completion": "Pose classification, translation and two kinds of question as completion.",
    "pairs": "Count the training pairs that a sentence gives, by tokenizer and language.",
    "latency": "Time prefill and decode, and count the bytes of the key/value cache.",
}


def experiment(name: str) -> Any:
    """The module of an experiment. Raises ValueError for a name that is not there."""
    if name not in EXPERIMENTS:
        raise ValueError(f"{name!r} is not an experiment; choose one of {', '.join(EXPERIMENTS)}.")
    return importlib.import_module(f"refllm.lab.experiments.{name}")
