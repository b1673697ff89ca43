"""`refllm bench`: how long training steps, decoding and tokenizers take, ours and a peer's in turn."""

from dataclasses import replace
from typing import Annotated

import typer

from refllm.cli.bench_options import Against, AsJson, Config, Kernels, Peers, Runs, Save, Threads, Variants, numbers
from refllm.cli.bench_run import PEERS, measure, ours, peers
from refllm.cli.bench_steady import steady
from refllm.cli.bench_tokenizers import tokenizer, tokenizer_training

app = typer.Typer(help="Time training steps, decoding and tokenizers, side by side with what people use.", no_args_is_help=True)


@app.command()
def train(
    against: Against = None,
    config: Config = "nanogpt-cpu",
    kernels: Kernels = "on",
    runs: Runs = 20,
    threads: Threads = None,
    variants: Variants = False,
    as_json: AsJson = False,
    save: Save = False,
) -> None:
    """Time a training step: forward, backward, clipping and AdamW.

    Shapes: nanogpt-cpu (4 layers, 4 heads, 128 wide, context 64, batch 12) and baby-gpt (6, 6, 384, 256, 16),
    both GPT-2 with 65 tokens.
    """
    from refllm.bench.duel import Side
    from refllm.bench.shapes import TRAINING, lookup

    lookup(TRAINING, config)
    sides = ours(kernels) + peers(against, ("torch",))
    if variants:
        erf = {"activation": "gelu_erf"}
        sides += [Side(f"{side.name}, exact GELU", side.library, side.environment, erf) for side in sides]
        sides += [Side("torch, fused AdamW", "torch", options={"fused": True})] if against else []
    measure(sides, "train", config, runs, threads, as_json, save, PEERS["torch"] if against else None)


@app.command()
def decode(
    against: Peers = None,
    config: Config = "stories15m",
    contexts: Annotated[str | None, typer.Option(help="Lengths of prompts, by commas: the time of a token behind each.")] = None,
    batch: Annotated[str | None, typer.Option(help="Numbers of rows, by commas: the time of a token of so many at once.")] = None,
    tokens: Annotated[int | None, typer.Option(min=2, help="To generate in a run; what suits the shape if not given.")] = None,
    kernels: Kernels = "on",
    runs: Runs = 10,
    threads: Threads = None,
    as_json: AsJson = False,
    save: Save = False,
) -> None:
    """Time a prompt and each token after it, one sequence, greedily, from a cache made once.

    Shapes, all Llamas with random weights: stories260k (5 layers, 64 wide, 512 tokens), stories15m (6 layers, 288 wide,
    32,000 tokens) and llama110m (12 layers, 768 wide, 32,000 tokens). transformers is its `generate`, each token timed where
    a streamer is handed it.
    """
    from refllm.bench import calls
    from refllm.bench.shapes import DECODING, lookup

    shape = lookup(DECODING, config)
    n = tokens or shape.tokens
    asked = calls.at_contexts(numbers("--contexts", contexts), n) if contexts else []
    asked += calls.of_rows(numbers("--batch", batch), shape.context, n) if batch else []
    _time_calls(asked or calls.plain(shape.context, n), against, config, kernels, runs, threads, as_json, save)


@app.command()
def prefill(
    against: Peers = None,
    config: Config = "stories15m",
    tokens: Annotated[str, typer.Option(help="Lengths of prompts, by commas.")] = "512,1024",
    kernels: Kernels = "on",
    runs: Runs = 10,
    threads: Threads = None,
    as_json: AsJson = False,
    save: Save = False,
) -> None:
    """Time a prompt up to the first token, with a cache made for it.

    The shapes are those of `refllm bench decode`. torch's attention is scaled_dot_product_attention.
    """
    from refllm.bench import calls

    asked = calls.prompts(numbers("--tokens", tokens))
    _time_calls(asked, against, config, kernels, runs, threads, as_json, save)


def _time_calls(
    asked: list, against, config: str, kernels: str, runs: int, threads: int | None, as_json: bool, save: bool
) -> None:
    """Time calls of generate. The peers' times are given as multiples of ours."""
    from refllm.bench import calls
    from refllm.bench.shapes import DECODING, lookup

    shape, mine = lookup(DECODING, config), ours(kernels)
    room = max(shape.config.max_positions, calls.positions(asked))
    sides = [
        replace(side, model={"max_positions": room}, options={"calls": asked})
        for side in mine + peers(against, ("torch", "transformers"))
    ]
    measure(sides, "decode", config, runs, threads, as_json, save, mine[0].name, lambda result: calls.figures(asked, result))


app.command()(steady)
app.command()(tokenizer)
app.command()(tokenizer_training)
