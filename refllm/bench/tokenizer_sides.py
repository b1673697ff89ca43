"""Tokenizers to time: ours and the libraries people use, each opened from its own kind of file with the same vocabulary."""

import array
import base64
import gc
import hashlib
import json
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from refllm.bench import memory
from refllm.bench.side import Side

PROMPTS, PROMPT = 50, 200  # how many prompts a run encodes one after another, and of how many characters
DOCUMENTS = 64  # of a batch
PEERS = ("tiktoken", "tokenizers", "sentencepiece")


class Codec(NamedTuple):
    """What a library does with text."""

    encode: Callable[[str], Iterable[int]]
    encode_batch: Callable[[list[str]], list]
    decode: Callable[[list[int]], str]


class Files(NamedTuple):
    """The same tokenizer in the file of each library, where it has one; pattern: what cuts text into words, for the rank file."""

    refllm: str
    tokenizers: str
    tiktoken: str
    sentencepiece: str
    pattern: str


def write_files(path: Path, folder: Path, peers: Iterable[str]) -> Files:
    """Write what the peers open. Raises ValueError where a peer has no such tokenizer."""
    from refllm.tokenizer import Tokenizer
    from refllm.tokenizer.byte_level_bpe import ByteLevelBPE

    tokenizer = Tokenizer.load(path)
    hugging_face, ranks, pieces, pattern = "", "", "", ""
    for peer in peers:
        if peer == "tokenizers":
            hugging_face = str(folder / "tokenizer.json")
            tokenizer.save(hugging_face)
        elif peer == "tiktoken":
            model = tokenizer.model
            if not isinstance(model, ByteLevelBPE) or not isinstance(model.pattern, str):
                raise ValueError(f"{path} is no byte-level BPE with one pattern, the only kind that tiktoken has.")
            pattern, ranks = model.pattern, str(folder / "ranks.tiktoken")
            lines = (base64.b64encode(token) + b" %d\n" % rank for rank, token in enumerate(_in_order_of_rank(model)))
            Path(ranks).write_bytes(b"".join(lines))
        elif peer == "sentencepiece":
            if path.suffix != ".model":
                raise ValueError(f"{path} is no tokenizer.model, the only kind that sentencepiece opens.")
            pieces = str(path)
        else:
            raise ValueError(f"--against {peer!r} is not a peer that refllm knows; there are {', '.join(PEERS)}.")
    return Files(str(path), hugging_face, ranks, pieces, pattern)


def _in_order_of_rank(model: Any) -> list[bytes]:
    """The tokens by id, the gaps filled by byte strings that no UTF-8 text holds."""
    return [model.vocabulary.get(id, b"\xff%d" % id) for id in range(max(model.vocabulary) + 1)]


def opened(library: str, files: Files) -> Codec:
    """Open a library's file."""
    path: str = getattr(files, library)
    if library == "refllm":
        from refllm.tokenizer import Tokenizer

        tokenizer = Tokenizer.load(path)
        return Codec(
            lambda text: tokenizer.encode(text, disallowed_special=()),
            lambda texts: tokenizer.encode_batch(texts, disallowed_special=()),
            tokenizer.decode,
        )
    if library == "tiktoken":
        import tiktoken
        from tiktoken.load import load_tiktoken_bpe

        encoding = tiktoken.Encoding("peer", pat_str=files.pattern, mergeable_ranks=load_tiktoken_bpe(path), special_tokens={})
        return Codec(
            encoding.encode_ordinary,
            lambda texts: encoding.encode_ordinary_batch(texts, num_threads=1),
            encoding.decode,
        )
    if library == "tokenizers":
        import tokenizers

        peer = tokenizers.Tokenizer.from_file(path)

        def encode(texts):  # the quick form, which keeps no offsets
            return [found.ids for found in peer.encode_batch_fast(texts, add_special_tokens=False)]

        return Codec(lambda text: encode([text])[0], encode, lambda ids: peer.decode(ids, skip_special_tokens=False))
    import sentencepiece

    processor = sentencepiece.SentencePieceProcessor(model_file=path)
    return Codec(processor.encode, lambda texts: processor.encode(texts, num_threads=1), processor.decode)


def digest(ids: Iterable[int]) -> str:
    """A short name of a list of ids, equal for equal lists."""
    return hashlib.sha256(array.array("i", ids).tobytes()).hexdigest()[:16]


class TokenizerSide:
    """One library at work on texts. Words are never remembered from one run to the next: each run opens the file anew.

    texts: name -> text, the first of which also gives the prompts and the documents of the batch
    """

    def __init__(self, library: str, files: Files, texts: dict[str, str]):
        self.library, self.files, self.texts = library, files, texts
        self.measured: dict[str, float] = {}
        main = next(iter(texts.values()))
        step = max(1, len(main) // PROMPTS)
        self.prompts = [main[start : start + PROMPT] for start in range(0, len(main), step)][:PROMPTS]
        size = -(-len(main) // DOCUMENTS)
        self.documents = [main[start : start + size] for start in range(0, len(main), size)]

    def first(self) -> dict[str, str]:
        """What all sides must agree on: the ids of every text, by digest. The first text measures memory, in a fresh process."""
        codec = self.ready()
        gc.collect()
        memory.forget_peak()
        before = memory.resident()
        longest = max(self.texts.values(), key=len)
        size, ids = len(longest.encode()), list(codec.encode(longest))
        self.measured = {"peak_per_input_byte": (memory.peak() - before) / size, "input_bytes_per_token": size / len(ids)}
        found = {f"ids of {name}": digest(codec.encode(text)) for name, text in self.texts.items()}
        return found | {"ids of prompts": digest(id for prompt in self.prompts for id in codec.encode(prompt))}

    def figures(self) -> dict[str, float]:
        """What the first text told: bytes of memory for each of its own, and of these for each token."""
        return self.measured

    def run(self) -> dict[str, float]:
        """Seconds of every piece of work; loading is done when the first prompt has its ids."""
        seconds: dict[str, float] = {}

        def timed(name: str, work: Callable[[], Any], times: int = 1) -> Any:
            began = time.perf_counter()
            result = work()
            seconds[name] = (time.perf_counter() - began) / times
            return result

        def load() -> Codec:
            codec = opened(self.library, self.files)
            codec.encode(self.prompts[0])
            return codec

        codec = timed("load", load)
        timed("prompt", lambda: [codec.encode(prompt) for prompt in self.prompts[1:]], len(self.prompts) - 1)
        ids = {}
        for name, text in self.texts.items():
            encode = self.ready().encode
            ids[name] = timed(name, partial(encode, text))
        timed("decode", partial(codec.decode, ids[next(iter(ids))]))
        timed("batch", partial(self.ready().encode_batch, self.documents))
        return seconds

    def ready(self) -> Codec:
        """The file opened anew, and the tables made that are made when first wanted; no word of the texts is remembered."""
        gc.collect()  # the one opened before
        codec = opened(self.library, self.files)
        codec.encode(" \n" * 100_000)
        return codec


class TrainingSide:
    """One library that learns a byte-level BPE of vocab_size tokens from documents, by Hugging Face's rule for ties."""

    def __init__(self, library: str, vocab_size: int, documents: list[str]):
        self.library, self.vocab_size, self.documents = library, vocab_size, documents

    def trained(self) -> Any:
        """The library's own tokenizer."""
        if self.library == "refllm":
            from refllm.tokenizer import train_bpe

            return train_bpe(self.documents, self.vocab_size)
        from tokenizers import Tokenizer, models, pre_tokenizers, trainers

        theirs = Tokenizer(models.BPE())
        theirs.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        trainer = trainers.BpeTrainer(
            vocab_size=self.vocab_size,
            special_tokens=["<|endoftext|>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        theirs.train_from_iterator(self.documents, trainer)
        return theirs

    def first(self) -> dict[str, str]:
        """What all sides must agree on: the merges in their order, by digest."""
        from refllm.tokenizer.byte_level import to_characters

        trained = self.trained()
        if self.library == "refllm":
            token = trained.model.vocabulary
            merges = [(to_characters(token[left]), to_characters(token[right])) for left, right in trained.model.pairs()]
        else:
            merges = json.loads(trained.to_str())["model"]["merges"]
        return {"merges": hashlib.sha256("\n".join(map(" ".join, merges)).encode()).hexdigest()[:16]}

    def run(self) -> dict[str, float]:
        """Seconds of the whole training, from documents to merges."""
        began = time.perf_counter()
        self.trained()
        return {"training": time.perf_counter() - began}


def prepare(library: str, options: dict[str, Any]) -> Side:
    """The side that does this work in this library.

    options: the path of a JSON file, texts by name to be encoded, with files, or a list of documents to be learned from, with
    vocab_size
    """
    texts = json.loads(Path(options["texts"]).read_bytes())
    if "vocab_size" in options:
        training = TrainingSide(library, options["vocab_size"], texts)
        return Side(training.first, training.run)
    side = TokenizerSide(library, Files(**options["files"]), texts)
    return Side(side.first, side.run, side.figures)
