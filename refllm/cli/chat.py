"""`refllm chat`: a conversation with a model, in its own chat template."""

import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from refllm.cli.option_table import takes, with_defaults
from refllm.cli.sampling_options import SAMPLING, BackendName, sampler_of

if TYPE_CHECKING:
    from rich.console import Console

    from refllm.decoding.chat import Conversation

HELP = "/reset begins anew, /exit or Ctrl-D ends, Ctrl-C stops an answer."


@takes(("Sampling", SAMPLING))
def chat(
    path: Annotated[Path, typer.Argument(help="A Hugging Face folder or a GGUF file of a chat model.", show_default=False)],
    system: Annotated[str | None, typer.Option("--system", help="What the model is told before all messages.")] = None,
    template: Annotated[
        str | None, typer.Option("--template", help="A file with a chat template, or the name of one of the model's.")
    ] = None,
    max_tokens: Annotated[
        int | None, typer.Option("--max-tokens", help="Tokens in an answer; as many as the context holds if not given.")
    ] = None,
    backend: BackendName = None,
    **options: Any,
) -> None:
    """Talk with a chat model. What is piped in is one message a line, and each answer is written to stdout.

    /reset begins a new conversation, /exit ends the program. A special token that a message spells is ordinary text.
    """
    from rich.console import Console

    from refllm.cli.documents import STDIN, read_lines

    sampler, seed = sampler_of(options), with_defaults(SAMPLING, options)["seed"]
    conversation = open_conversation(path, template, sampler, seed, system, max_tokens, backend)
    console, asking = Console(highlight=False, soft_wrap=True), sys.stdin.isatty()
    talk(conversation, typed(console) if asking else read_lines(STDIN), console, asking)


def open_conversation(path: Path, template: str | None, sampler, seed: int, system, max_tokens, backend) -> "Conversation":
    """A conversation with the model of a checkpoint that has not begun.

    template: a file that holds a chat template, or the name of one of the checkpoint's
    """
    from refllm import checkpoints
    from refllm.checkpoints import chat_files
    from refllm.decoding.chat import Conversation
    from refllm.tokenizer import chat_template
    from refllm.tokenizer.chat_encoder import ChatEncoder

    model = checkpoints.load(path, backend)
    if model.tokenizer is None:
        raise ValueError(f"{path} has no tokenizer, and a conversation is text; lay the model's tokenizer.json beside it.")
    files = chat_files.read(path, model.tokenizer)
    if template is not None and Path(template).is_file():
        text = Path(template).read_text(encoding="utf-8")
    elif files.templates:
        text = chat_template.choose(files.templates, template)
    else:
        raise ValueError(f"{path} has no chat template; give one with --template FILE, or continue text with refllm generate.")
    encoder = ChatEncoder(model.tokenizer, text, files.variables)
    end = encoder.end_of_turn()
    return Conversation(model, encoder, sampler, seed, files.ends | ({end} if end is not None else set()), system, max_tokens)


def talk(conversation: "Conversation", lines: Iterable[str], console: "Console", asking: bool) -> None:
    """Answer every line. asking: whether somebody types them, whom a mistake should not cost the conversation"""
    for line in lines:
        message = line.strip()
        if message == "/exit":
            return
        if message == "/reset":
            conversation.reset()
            if asking:
                console.print("A new conversation.", style="dim")
        elif message:
            reply(conversation, message, console, asking)


def typed(console: "Console") -> Iterator[str]:
    """The lines that somebody types, until Ctrl-D. Ctrl-C, while there is no answer to stop, tells how to leave."""
    with suppress(ImportError):
        import readline  # noqa: F401  # gives input() the arrow keys and what was typed before
    console.print(HELP, style="dim")
    while True:
        try:
            line = input("> ")
        except KeyboardInterrupt:
            console.print(f"\n{HELP}", style="dim")
        except EOFError:
            console.print()
            return
        else:
            yield line


def reply(conversation: "Conversation", message: str, console: "Console", asking: bool) -> None:
    """Write the answer to a message as it comes, until it ends or Ctrl-C stops it."""
    from rich.text import Text

    try:
        for piece in conversation.answer(message):
            console.print(Text(piece.text), end="")
            console.file.flush()
    except KeyboardInterrupt:
        console.print(Text(" [stopped]", style="dim"), end="")
    except ValueError as error:
        if not asking:
            raise
        console.print(Text(str(error), style="red"), end="")
    console.print()
