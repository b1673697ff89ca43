"""How a command that writes chooses tokens: the same options for all of them."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from refllm.cli.option_table import Option, with_defaults

if TYPE_CHECKING:
    from refllm.decoding import Sampler

BackendName = Annotated[str | None, typer.Option("--backend", help="numpy, mlx, cupy or another that is installed.")]

MIROSTAT_ETA = 0.1  # bits, as Basu 2021 (arXiv:2007.14966) has it
SAMPLING = {
    "temperature": Option(float, "0: the likeliest always.", 0.8),
    "top_k": Option(int, "Draw among the k likeliest only.", metavar="k"),
    "top_p": Option(float, "… fewest that sum to p.", 0.95, "p"),
    "min_p": Option(float, "… those of p times the likeliest or more.", metavar="p"),
    "typical_p": Option(float, "… most typical that sum to p.", metavar="p"),
    "epsilon": Option(float, "… those as likely as p or more.", metavar="p"),
    "eta": Option(float, "… likewise; more where all are unlikely.", metavar="p"),
    "mirostat": Option(float, "Steer for tau bits of surprise a token.", metavar="tau"),
    "mirostat_eta": Option(float, f"… how fast (default: {MIROSTAT_ETA}).", metavar="eta"),
    "repetition_penalty": Option(float, "Divides logits of all tokens so far."),
    "presence_penalty": Option(float, "Taken from logits of tokens written."),
    "frequency_penalty": Option(float, "… once for each time."),
    "no_repeat_ngram": Option(int, "Never write n tokens in a row twice."),
    "logit_bias": Option(list[str], "Added to a token's logit; repeatable.", metavar="id=x"),
    "seed": Option(int, "Decides the draws.", 0),
    "draws": Option(str, "philox, or llama2.c for run.c's draws."),
}
"""Names are those of `Sampler`'s fields, save mirostat's two, and seed, which is none."""


def sampler_of(given: Mapping[str, Any]) -> "Sampler":
    """The sampler of options by name, where None is as not given. Raises ValueError for a value that cannot be."""
    from refllm.decoding import Sampler

    values = with_defaults(SAMPLING, given)
    values.pop("seed")
    rate = values.pop("mirostat_eta")
    if values["mirostat"] is not None:
        values["mirostat"] = (values["mirostat"], MIROSTAT_ETA if rate is None else rate)
        values["top_p"] = given.get("top_p")  # mirostat stands in the place of the usual cut
    elif rate is not None:
        raise ValueError("--mirostat-eta is how fast mirostat goes to its aim; give that with --mirostat.")
    if values["logit_bias"] is not None:
        values["logit_bias"] = biases(values["logit_bias"])
    return Sampler(**{name: value for name, value in values.items() if value is not None})


def biases(given: Mapping[str, float] | Sequence[str]) -> dict[int, float]:
    """Biases by token id, of an object of JSON or of arguments such as 13=-1.5."""
    pairs = given.items() if isinstance(given, Mapping) else (text.partition("=")[::2] for text in given)
    found = {}
    for token, bias in pairs:
        try:
            found[int(token)] = float(bias)
        except (TypeError, ValueError):
            raise ValueError(
                f"a logit bias is a token's id and a number, such as 13=-1.5; {token!r} and {bias!r} are not."
            ) from None
    return found
