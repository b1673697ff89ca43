"""`refllm bench`: how long training steps, decoding and tokenizers take, ours and a peer's in turn."""

import json
import os
import shlex
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Time training steps, decoding and tokenizers, side by side with what people use.", no_args_is_help=True)

Against = Annotated[str | None, typer.Option(help="The peer: torch, plain and eager. None if not given.")]
Config = Annotated[str, typer.Option(help="The shape to measure.")]
Kernels = Annotated[str, typer.Option(help="on, off (the readable bodies), or both.")]
Runs = Annotated[int, typer.Option(min=1, help="Timed runs of each side.")]
Threads = Annotated[int | None, typer.Option(min=1, help="Threads of each side; as many as there are cores if not given.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Save = Annotated[bool, typer.Option("--save", help="Append the result to spec/results/timings.md.")]
Variants = Annotated[bool, typer.Option("--variants", help="Time torch's fused AdamW and the exact GELU too.")]


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
    sides = _ours(kernels) + _peer(against)
    if variants:
        erf = {"activation": "gelu_erf"}
        sides += [Side(f"{side.name}, exact GELU", side.library, side.environment, erf) for side in sides]
        sides += [Side("torch, fused AdamW", "torch", options={"fused": True})] if against else []
    _measure(sides, "train", config, runs, threads, as_json, save)


@app.command()
def decode(
    against: Against = None,
    config: Config = "stories15m",
    kernels: Kernels = "on",
    runs: Runs = 10,
    threads: Threads = None,
    as_json: AsJson = False,
    save: Save = False,
) -> None:
    """Time a prompt and each token after it, one sequence, greedily, from a cache made once.

    Shapes: stories260k (5 layers, 64 wide, 512 tokens) and stories15m (6 layers, 288 wide, 32,000 tokens),
    both Llamas with random weights.
    """
    from refllm.bench.shapes import DECODING, lookup

    lookup(DECODING, config)
    _measure(_ours(kernels) + _peer(against), "decode", config, runs, threads, as_json, save)


@app.command()
def tokenizer(
    path: Annotated[
        Path | None,
        typer.Argument(metavar="TOKENIZER", help="A file or folder; one trained on the code if not given."),
    ] = None,
    against: Annotated[str, typer.Option(help="Peers, by commas: tiktoken, tokenizers, sentencepiece.")] = "",
    text: Annotated[list[Path] | None, typer.Option(help="A UTF-8 file to encode; once for each.")] = None,
    megabytes: Annotated[float, typer.Option(min=0.01, help="Of Python source and of the mix of scripts.")] = 4,
    runs: Runs = 5,
    as_json: AsJson = False,
    save: Save = False,
) -> None:
    """Time a tokenizer: loading, 200-character prompts, whole texts, a batch of 64 documents, decoding, and one 100 kB word.

    The peers open the same vocabulary, and all sides must give the same ids. One thread a side.
    Each run opens the file anew: no word is remembered from the run before.
    """
    from refllm.bench import texts, tokenizer_sides
    from refllm.tokenizer import train_bpe

    size = int(megabytes * 1e6)
    given = {file.name: _read(file) for file in text or []}
    given |= {"code": texts.code(size), "mix": texts.mix(size, 0), "word": texts.random_word(min(100_000, size), 0)}
    peers = [peer for peer in against.split(",") if peer]
    with tempfile.TemporaryDirectory() as folder:
        if path is None:
            path = Path(folder) / "trained.json"
            train_bpe(given["code"], 4096).save(path)
        files = tokenizer_sides.write_files(path, Path(folder), peers)
        texts_path = Path(folder) / "texts.json"
        texts_path.write_text(json.dumps(given))
        sides = _tokenizers(peers, {"files": files._asdict(), "texts": str(texts_path)})
        _measure(sides, "tokenizer", "", runs, 1, as_json, save)


@app.command()
def tokenizer_training(
    vocab_size: Annotated[int, typer.Option(min=257, help="Of the vocabulary to learn.")] = 32_768,
    against: Annotated[str, typer.Option(help="The peer: tokenizers. None if not given.")] = "",
    text: Annotated[list[Path] | None, typer.Option(help="A UTF-8 file to learn from; once for each.")] = None,
    megabytes: Annotated[float, typer.Option(min=0.01, help="Of Python source, where no text is given.")] = 10,
    runs: Runs = 3,
    threads: Threads = None,
    as_json: AsJson = False,
    save: Save = False,
) -> None:
    """Time the training of a byte-level BPE, from documents to merges, which must be the same on both sides."""
    from refllm.bench import texts

    peers = [peer for peer in against.split(",") if peer]
    if peers and peers != ["tokenizers"]:
        raise ValueError(f"--against {against!r} is not a peer that learns the same merges; there is tokenizers.")
    documents = [_read(file) for file in text] if text else list(texts.library_sources(int(megabytes * 1e6)))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "documents.json"
        path.write_text(json.dumps(documents))
        sides = _tokenizers(peers, {"vocab_size": vocab_size, "texts": str(path)})
        _measure(sides, "tokenizer training", "", runs, threads, as_json, save)


def _tokenizers(peers: list[str], options: dict) -> list:
    """Our side and the peers'."""
    from refllm.bench.duel import Side

    for peer in peers:
        if find_spec(peer) is None:
            raise ImportError(f"refllm bench --against {peer} needs it, and it is not installed: pip install 'refllm[bench]'.")
    return [Side(library, library, options=options) for library in ("refllm", *peers)]


def _read(path: Path) -> str:
    """A file's text, newlines as they stand."""
    return path.read_bytes().decode("utf-8")


def _ours(kernels: str) -> list:
    from refllm.array_api import load
    from refllm.bench.duel import Side

    if kernels not in ("on", "off", "both"):
        raise ValueError(f"--kernels {kernels!r} is neither on, off nor both.")
    name = load().name
    settings = ("on", "off") if kernels == "both" else (kernels,)
    return [Side(f"refllm {name}, kernels {k}", "refllm", {"REFLLM_KERNELS": k, "REFLLM_BACKEND": name}) for k in settings]


def _peer(against: str | None) -> list:
    from refllm.bench.duel import Side

    if against is None:
        return []
    if against != "torch":
        raise ValueError(f"--against {against!r} is not a peer that refllm knows; there is torch.")
    if find_spec("torch") is None:
        raise ImportError("refllm bench --against torch needs torch, which is not installed: pip install 'refllm[bench]'.")
    return [Side("torch eager", "torch")]


def _measure(sides: list, work: str, config: str, runs: int, threads: int | None, as_json: bool, save: bool) -> None:
    """Run the sides in turn, print what came out, and keep it if that is wanted."""
    from rich.console import Console

    from refllm.bench import report
    from refllm.bench.duel import duel
    from refllm.conformance.specification import spec_folder

    threads = threads or report.cores()
    errors = Console(stderr=True, highlight=False)
    with errors.status("starting") as status:
        results = duel(sides, work, config, runs, threads, lambda done: status.update(f"round {done} of {runs}"))
    base = next((r for r in results if r.side.name in ("torch eager", "refllm")), None)
    command = shlex.join(["refllm", *(a for a in sys.argv[1:] if a not in ("--save", "--json"))])
    found = report.record(results, base, command, threads)
    if as_json:
        print(json.dumps(found))
    else:
        _print(found, base.side.name if base else None)
    if save:
        path = spec_folder() / "results" / "timings.md"
        report.save(found, path)
        errors.print(f"appended to {os.path.relpath(path)}")


def _print(found: dict, base: str | None) -> None:
    from rich.console import Console
    from rich.table import Table

    from refllm.cli import figures

    console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    console.print(f"{found['machine']}; {found['threads']} threads a side; {versions}; {found['date']}\n", soft_wrap=True)
    compared = base is not None and any("ratio" in row for row in found["rows"])
    table = Table(box=None, padding=(0, 2), header_style="dim")
    for heading in ("", "timed", "median", *((f"× {base}", "quartiles") if compared else ()), "peak memory"):
        table.add_column(heading, justify="right" if heading and heading != "timed" else "left", no_wrap=True)
    for row in found["rows"]:
        ratio = (
            (f"[bold]{row['ratio']:.2f}[/]", "{:.2f} – {:.2f}".format(*row["ratio_quartiles"])) if "ratio" in row else ("", "")
        )
        cells = [row["side"], row["timed"], figures.span(row["seconds"]), *(ratio if compared else ())]
        table.add_row(*cells, figures.size(row["peak_bytes"]))
    console.print(table)
    for name, first in found["first_step"].items():
        said = ", ".join(f"{what} {_said(value)}" for what, value in first.items() if what != "tokens")
        tokens = first.get("tokens", [])
        said = said or f"{len(tokens)} tokens, the first {' '.join(map(str, tokens[:8]))}"
        console.print(f"[dim]{name} first: {said}[/]", soft_wrap=True)
    for name, figures_of in found["figures"].items():
        said = ", ".join(f"{what.replace('_', ' ')} {value:.2f}" for what, value in figures_of.items())
        console.print(f"[dim]{name}: {said}[/]", soft_wrap=True)


def _said(value: float | str) -> str:
    """A loss with six digits; a digest as it is."""
    return value if isinstance(value, str) else f"{value:.6f}"
