"""`refllm score`: how surprising each token of a text is to a model."""

from math import exp, log
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from refllm.cli.model_file import BACKEND, BOS, CONTEXT, DTYPE, JSON, MODEL, STRIDE, TOKENIZER

if TYPE_CHECKING:
    from refllm.models.model import Model

LEVELS = (0, 1, 3, 6, 10)  # bits of surprise where a colour begins
PASTELS = ("#c6efce", "#e9f5c5", "#fff2b3", "#ffd7a8", "#ffb3a7")
SIXTEEN = ("green", "cyan", "yellow", "magenta", "red")  # for terminals that have no others
BITS = 1 / log(2)  # in a nat


class Scored(NamedTuple):
    """One token of a text."""

    id: int
    text: bytes
    nats: float | None  # log-probability; None for a text's first token, which nothing predicts
    alternatives: tuple[tuple[int, bytes, float], ...]  # the likeliest in its place: id, text, log-probability


def score(
    model: MODEL,
    text: Annotated[
        str | None, typer.Argument(help="A text, or a UTF-8 file; - or none: standard input.", show_default=False)
    ] = None,
    continuation: Annotated[
        str | None, typer.Option("--continuation", "-c", help="Score this text as it follows the other.", metavar="TEXT")
    ] = None,
    alternatives: Annotated[int, typer.Option("--alternatives", "-k", help="Show so many of the likeliest tokens.", min=0)] = 0,
    bos: BOS = None,
    context: CONTEXT = None,
    stride: STRIDE = None,
    as_json: JSON = False,
    tokenizer: TOKENIZER = None,
    backend: BACKEND = None,
    dtype: DTYPE = None,
) -> None:
    """Tell how surprising each token of a text is to a model.

    A token is judged given those before it; by a masked model such as BERT, given all the others (pseudo-log-likelihood).
    A terminal shows the text coloured by surprise; a pipe gets a line for each token: id, log-probability in nats, text.
    """
    import json

    from rich.console import Console

    from refllm.cli.model_file import given_text, open_model

    said = given_text(text)
    opened = open_model(model, backend, dtype, tokenizer)
    if continuation is not None and (alternatives or bos is not None or context or stride):
        raise ValueError("--continuation is scored whole, without --alternatives, --bos, --context and --stride.")
    if continuation is not None:
        tokens, summary = of_continuation(opened, said, continuation)
    elif opened.architecture.AUTOREGRESSIVE:
        tokens, summary = of_text(opened, said, alternatives, bos, context, stride)
    else:
        tokens, summary = of_masked(opened, said)
    console = Console(highlight=False)
    if as_json:
        print(json.dumps({**summary, "tokens": [as_dict(token) for token in tokens]}, ensure_ascii=False))
    elif not console.is_terminal:
        write_lines(tokens)
    elif alternatives or console.no_color or console.color_system is None:
        show_table(tokens, summary, console)
    else:
        show_coloured(tokens, summary, console)


def of_text(
    model: "Model", text: str, alternatives: int, bos: bool | None, context: int | None, stride: int | None
) -> tuple[list[Scored], dict[str, Any]]:
    """Every token of a text given those before it."""
    from refllm.evaluation.likelihood import check_causal, tokenizer_of
    from refllm.evaluation.perplexity import Perplexity, document_begin, score_text, text_tokens

    check_causal(model)
    tokenizer = tokenizer_of(model)
    tokens, n_bytes = text_tokens(tokenizer, text, bos)
    begun, found = document_begin(tokenizer, bos) is not None, []
    for scores in score_text(model, tokens, context=context, stride=stride, alternatives=alternatives):
        for nats, ids, theirs in zip(*scores, strict=True):
            others = zip(ids.tolist(), tokenizer.tokens(ids.tolist()), theirs.tolist(), strict=True)
            found.append((float(nats), tuple(others)))
    ids = tokens.tolist()[begun:]
    told = found if begun else [(None, ()), *found]
    scored = [Scored(id, piece, *rest) for id, piece, rest in zip(ids, tokenizer.stretches(ids), told, strict=True)]
    all_nats = -sum(nats for nats, _ in found)
    judged = Perplexity(all_nats, len(found), n_bytes, len(text.split()))
    return scored, {
        "nats": judged.nats,
        "scored_tokens": judged.n_tokens,
        "nats_per_token": judged.nats_per_token,
        "perplexity": judged.perplexity,
        "bits_per_byte": judged.bits_per_byte,
    }


def of_continuation(model: "Model", prompt: str, continuation: str) -> tuple[list[Scored], dict[str, Any]]:
    """A continuation given its prompt."""
    from refllm.evaluation.likelihood import continuation_log_likelihood

    found = continuation_log_likelihood(model, prompt, continuation)
    tokens = _scored(model, found.tokens, found.log_probabilities, begins=False)
    return tokens, {
        "log_likelihood": found.total,
        "scored_tokens": len(found.tokens),
        "nats_per_token": -found.per_token,
        "nats_per_byte": -found.per_byte,
        "greedy": found.greedy,
        "prompt_tokens_cut": found.cut,
    }


def of_masked(model: "Model", text: str) -> tuple[list[Scored], dict[str, Any]]:
    """Every token of a text given all the others."""
    from refllm.evaluation.fill import pseudo_log_likelihood

    found = pseudo_log_likelihood(model, text)
    tokens = _scored(model, found.tokens, found.log_probabilities, begins=True)
    return tokens, {
        "pseudo_log_likelihood": found.total,
        "scored_tokens": len(found.tokens),
        "nats_per_token": -found.total / len(found.tokens),
        "pseudo_perplexity": found.pseudo_perplexity,
    }


def _scored(model: "Model", ids, nats, begins: bool) -> list[Scored]:
    pieces = model.tokenizer.stretches(ids, begins)
    return [Scored(id, piece, float(value), ()) for id, piece, value in zip(ids, pieces, nats, strict=True)]


def as_dict(token: Scored) -> dict[str, Any]:
    """A token as JSON has it."""
    described: dict[str, Any] = {"id": token.id, "text": token.text.decode("utf-8", "replace"), "log_probability": token.nats}
    if token.alternatives:
        described["alternatives"] = [
            {"id": id, "text": text.decode("utf-8", "replace"), "log_probability": nats} for id, text, nats in token.alternatives
        ]
    return described


def write_lines(tokens: list[Scored]) -> None:
    """A line for each token: its id, log-probability in nats, text, and the same of each alternative."""
    from refllm.cli.visible import visible_line

    for token in tokens:
        cells = [str(token.id), "" if token.nats is None else f"{token.nats:.6f}", visible_line(token.text)]
        for id, text, nats in token.alternatives:
            cells += [str(id), f"{nats:.6f}", visible_line(text)]
        print(*cells, sep="\t")


def bits(nats: float) -> float:
    """The surprise in bits of a log-probability in nats."""
    return max(0.0, -nats * BITS)


def colour(nats: float | None, console: Any) -> str:
    """The style of a token as surprising as that."""
    if nats is None:
        return "dim"
    return style(sum(bits(nats) >= least for least in LEVELS) - 1, console)


def style(level: int, console: Any) -> str:
    """The style of a level of surprise."""
    return f"black on {(SIXTEEN if console.color_system == 'standard' else PASTELS)[level]}"


def show_coloured(tokens: list[Scored], summary: dict[str, Any], console: Any) -> None:
    """The text, coloured by surprise, and what the colours mean."""
    from rich.text import Text

    from refllm.cli.visible import visible

    shown = Text()
    for token in tokens:
        shown.append(visible(token.text), colour(token.nats, console))
    console.print(shown, soft_wrap=True)
    legend = Text("\n  bits of surprise  ")
    for level, least in enumerate(LEVELS):
        legend.append(f" {least}+ ", style(level, console)).append(" ")
    console.print(legend)
    console.print(in_words(summary), style="dim", soft_wrap=True)


def show_table(tokens: list[Scored], summary: dict[str, Any], console: Any) -> None:
    """A row for each token, with the likeliest in its place."""
    from rich.table import Table
    from rich.text import Text

    from refllm.cli.visible import visible_line

    table = Table(box=None, padding=(0, 2), header_style="dim")
    for heading, justify in (("token", "left"), ("bits", "right"), ("probability", "right"), ("likeliest", "left")):
        table.add_column(heading, justify=justify)  # type: ignore[arg-type]  # rich's literal, which the loop widens
    for token in tokens:
        others = "  ".join(f"{visible_line(text)} {_percent(nats)}" for _, text, nats in token.alternatives)
        numbers = ("", "") if token.nats is None else (f"{bits(token.nats):.2f}", _percent(token.nats))
        table.add_row(Text(visible_line(token.text), colour(token.nats, console)), *numbers, Text(others))
    console.print(table)
    console.print(in_words(summary), style="dim", soft_wrap=True)


def _percent(nats: float) -> str:
    return f"{100 * exp(nats):.3g} %"


def in_words(summary: dict[str, Any]) -> str:
    """The summary on a line."""
    values = {name: f"{value:.4g}" if isinstance(value, float) else str(value).lower() for name, value in summary.items()}
    return "  " + ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in values.items())
