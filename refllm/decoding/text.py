"""Text from text: a prompt encoded, its continuation decoded as it comes, whole characters only."""

from collections.abc import Iterator
from typing import NamedTuple

from refllm.decoding.generate import generate
from refllm.decoding.sampler import Sampler
from refllm.models.model import Model
from refllm.tokenizer import StreamDecoder


class Piece(NamedTuple):
    """What one token adds to the text."""

    token: int | None  # its id; None for what is left of an unfinished character at the end
    text: str  # the characters that it completes, often one word, sometimes none
    seconds: float  # spent on it; the first piece's is the time to the first token, prefill included


def encode_prompt(model: Model, prompt: str) -> list[int]:
    """The ids of a prompt, special tokens in it read as ordinary text, behind the token that begins a document if there is one.

    Raises ValueError for a model without a tokenizer, and for an empty prompt where no token begins a document.
    """
    if model.tokenizer is None:
        raise ValueError("the model has no tokenizer, so it continues token ids only; give it one with its checkpoint.")
    ids = model.tokenizer.encode(prompt, disallowed_special=())
    if model.tokenizer.bos is not None:
        return [model.tokenizer.bos, *ids]
    if not ids:
        raise ValueError("the prompt is empty; give the model at least one character to continue.")
    return ids


def continue_text(model: Model, prompt: str, n_tokens: int | None, sampler: Sampler, seed: int) -> Iterator[Piece]:
    """Continue a prompt by up to n_tokens (None: as many as the context holds), or until the model ends the document.

    The pieces joined are the text; no piece holds half a character. Raises ValueError as `generate` and `encode_prompt` do.
    """
    ids = encode_prompt(model, prompt)
    eos = model.tokenizer.eos
    room = max(1, model.config.max_positions - len(ids))
    steps = generate(model, ids, room if n_tokens is None else n_tokens, sampler, seed, stop=() if eos is None else (eos,))
    return _pieces(steps, StreamDecoder(model.tokenizer, context=ids), eos)


def _pieces(steps, decoder: StreamDecoder, eos: int | None) -> Iterator[Piece]:
    for step in steps:
        token = int(step.tokens[0])
        yield Piece(token, "" if token == eos else decoder.push(token), step.seconds)
    if rest := decoder.finish():
        yield Piece(None, rest, 0.0)
