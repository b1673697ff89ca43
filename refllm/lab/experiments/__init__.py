"""The experiments by name. A new one is a module as `experiment.Experiment` describes, and a line here."""

import importlib
from typing import Any

EXPERIMENTS = {
    "sweep": "Train models of many sizes on one text and record their losses.",
    "emergence": "Train eight sizes on facts and sums: smooth losses, sharp scores.",
    "predictability": "Count bits per word of easy and hard texts, and code them.",
    "masked": "Sum the probabilities of all texts under an autoregressive and a masked model.",
    "rare": "Ask sizes for facts that came often and seldom: who remembers the rare ones.",
    "repetition": "Let sizes write on from real text, and count the texts that end in loops.",
    "chains": "Count, and sum modulo 10, over ever longer rows, in the head.",
    "agents": "Let models call a calculator over many steps, alone and with help.",
    "keyboard": "Lay n-gram tables and transformers on one axis of size: where they cross.",
    "epochs": "Read the same text up to 64 times: what repeated data are worth.",
    "collapse": "Train generations of models on what the ones before wrote.",
    "completion": "Put classification, translation and two kinds of question to a model as completion.",
    "pairs": "Count the training pairs of a sentence for tokenizers and languages.",
    "latency": "Time prefill and decode, and count the bytes of keys and values.",
}


def experiment(name: str) -> Any:
    """The module of an experiment. Raises ValueError for a name that is not there."""
    if name not in EXPERIMENTS:
        raise ValueError(f"{name!r} is not an experiment; choose one of {', '.join(EXPERIMENTS)}.")
    return importlib.import_module(f"refllm.lab.experiments.{name}")
