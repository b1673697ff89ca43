"""The commands, and the program made of them: only the module of the command asked for is imported."""

import importlib
from collections.abc import Sequence
from typing import Annotated

import typer

COMMANDS = {
    "quickstart": "Train a small Llama on the Python language reference and let it write.",
    "train": "Train a model on a text file or a folder of them.",
    "resume": "Go on with a run where it stopped, bit for bit.",
    "merge": "Make a whole model of an adapter and the model that it adapts.",
    "generate": "Continue prompts with a trained model.",
    "chat": "Talk with a chat model, in its own template.",
    "score": "Tell how surprising each token of a text is to a model.",
    "evaluate": "Measure how well a model predicts texts and solves tasks.",
    "fill": "Guess what stands behind the masks of a text, with a model such as BERT.",
    "keyboard": "Train a phone keyboard on texts, let it suggest words, judge it.",
    "lab": "Measure what is said about scale on models of your own.",
    "info": "Tell what a checkpoint is and what it costs, without reading its weights.",
    "convert": "Write a checkpoint in another format or dtype.",
    "tokenize": "Turn texts into token ids.",
    "detokenize": "Turn token ids into text.",
    "tokenizer": "Train a tokenizer, look into one, compare several.",
    "backends": "Show the backends, their devices and kernels, and how to install those missing.",
    "conform": "Prove a backend against the float64 oracle, op by op.",
    "diff": "Write the same text on two backends, and tell where they part.",
    "bench": "Time training, decoding and tokenizers, side by side with what people use.",
    "version": "Print the version.",
}
EPILOG = "Computes in NumPy; REFLLM_BACKEND=mlx or =cupy, or --backend, chooses another. --debug shows the traceback of an error."


def program(argv: Sequence[str]) -> typer.Typer:
    """The program for these arguments: the command that they name with its options, the others by name and one line."""
    app = typer.Typer(
        name="refllm",
        help="The reference language model: train one, let it write, and check every backend against NumPy.",
        epilog=EPILOG,
        add_completion=False,
        rich_markup_mode="rich",
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_options)
    asked = next((argument for argument in argv if not argument.startswith("-")), None)
    for name, summary in COMMANDS.items():
        module = importlib.import_module(f"refllm.cli.{name}") if name == asked else None
        if module is None:
            app.command(name, help=summary)(_unnamed)
        elif hasattr(module, "app"):
            app.add_typer(module.app, name=name, help=summary)
        else:
            app.command(name)(getattr(module, name))
    return app


def _version(wanted: bool) -> None:
    if wanted:
        from refllm.cli.version import version

        version()
        raise typer.Exit()


def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    """What stands before the command. The door takes --debug out of the arguments, wherever it stands."""


def _unnamed() -> None:
    """The place of a command that the arguments do not name."""
