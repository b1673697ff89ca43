"""`refllm bench tokenizer` and `refllm bench tokenizer-training`: how long tokenizers take."""

import json
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from refllm.cli.bench_options import AsJson, Runs, Save, Threads
from refllm.cli.bench_run import measure, require


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
    given = {file.name: read(file) for file in text or []}
    given |= {"code": texts.code(size), "mix": texts.mix(size, 0), "word": texts.random_word(min(100_000, size), 0)}
    peers = [peer for peer in against.split(",") if peer]
    with tempfile.TemporaryDirectory() as folder:
        if path is None:
            path = Path(folder) / "trained.json"
            train_bpe(given["code"], 4096).save(path)
        files = tokenizer_sides.write_files(path, Path(folder), peers)
        texts_path = Path(folder) / "texts.json"
        texts_path.write_text(json.dumps(given))
        sides = tokenizer_sides_of(peers, {"files": files._asdict(), "texts": str(texts_path)})
        measure(sides, "tokenizer", "", runs, 1, as_json, save)


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
    documents = [read(file) for file in text] if text else list(texts.library_sources(int(megabytes * 1e6)))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "documents.json"
        path.write_text(json.dumps(documents))
        sides = tokenizer_sides_of(peers, {"vocab_size": vocab_size, "texts": str(path)})
        measure(sides, "tokenizer training", "", runs, threads, as_json, save)


def tokenizer_sides_of(peers: list[str], options: dict) -> list:
    """Our side and the peers'."""
    from refllm.bench.duel import Side

    for peer in peers:
        require(peer)
    return [Side(library, library, options=options) for library in ("refllm", *peers)]


def read(path: Path) -> str:
    """A file's text, newlines as they stand."""
    return path.read_bytes().decode("utf-8")
