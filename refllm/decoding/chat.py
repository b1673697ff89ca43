"""A conversation with a model, whose keys and values stay from turn to turn: of each prompt only what is new is read."""

import time
from collections.abc import Collection, Iterator
from typing import Any

from refllm.decoding.cache import new_cache
from refllm.decoding.generate import prefill
from refllm.decoding.memory import remember
from refllm.decoding.prefix_cache import PrefixCache
from refllm.decoding.sampler import Sampler
from refllm.decoding.sampling import sample, uniforms
from refllm.decoding.text import Piece
from refllm.layers.kv_cache import KVCache
from refllm.models.accounting import cache_bytes
from refllm.models.model import Model
from refllm.tokenizer import StreamDecoder
from refllm.tokenizer.chat_encoder import ChatEncoder

LEAST = 256  # positions that a cache begins with, and that windows let it go back


class Conversation:
    """The messages so far, and the keys and values of the tokens that they became.

    ends: ids that end an answer    system: what the model is told before all messages
    max_tokens: of an answer; None: as many as the context holds
    """

    def __init__(
        self,
        model: Model,
        encoder: ChatEncoder,
        sampler: Sampler,
        seed: int,
        ends: Collection[int],
        system: str | None = None,
        max_tokens: int | None = None,
    ):
        if not getattr(model.architecture, "AUTOREGRESSIVE", True):
            raise ValueError("the model sees both sides of every token, so it cannot continue a conversation; load a decoder.")
        if max_tokens is not None and max_tokens < 1:
            raise ValueError(f"max_tokens={max_tokens} asks for no token; it must be at least 1.")
        self.model, self.encoder, self.sampler, self.seed = model, encoder, sampler, seed
        self.ends, self.system, self.max_tokens = frozenset(ends), system, max_tokens
        self.n_read = 0  # tokens of the last prompt that were not in the cache
        self._drawn = 0  # tokens chosen since the beginning, which address the draws
        self.prefixes = PrefixCache(model, most_bytes(model))
        self._cache: KVCache | None = None  # while an answer is written
        self._known: list[int] = []  # the tokens whose keys and values are in it
        self.reset()

    def reset(self) -> None:
        """Forget all messages but the system's."""
        self.messages: list[dict[str, Any]] = [] if self.system is None else [{"role": "system", "content": self.system}]

    def answer(self, text: str) -> Iterator[Piece]:
        """Say something, and hear the answer piece by piece; both are then among the messages.

        One that is left half-heard is kept as far as it came. Raises ValueError, at once, for a conversation that the chat
        template refuses or that is too long for the model's context; it is then as before.
        """
        asked = [*self.messages, {"role": "user", "content": text}]
        prompt = self.encoder.encode(asked, add_generation_prompt=True)
        room = self.model.config.max_positions - len(prompt)
        if not prompt or room < 1:
            raise ValueError(
                f"the conversation has {len(prompt)} tokens, which leave no room for an answer in the model's context of "
                f"{self.model.config.max_positions}; begin a new one."
            )
        self.model.tokens([prompt])  # raises for an id that the model does not know
        return self._pieces(asked, prompt, room if self.max_tokens is None else min(room, self.max_tokens))

    def _pieces(self, asked: list[dict[str, Any]], prompt: list[int], n_tokens: int) -> Iterator[Piece]:
        decoder, said = StreamDecoder(self.model.tokenizer, context=prompt, skip_special=True), []
        try:
            for token, seconds in self._tokens(prompt, n_tokens):
                piece = "" if token in self.ends else decoder.push(token)
                said.append(piece)
                yield Piece(token, piece, seconds)
            if rest := decoder.finish():
                said.append(rest)
                yield Piece(None, rest, 0.0)
        finally:
            if said:  # also where nobody wants to hear more
                self.messages = [*asked, {"role": "assistant", "content": "".join(said)}]

    def _tokens(self, prompt: list[int], n_tokens: int) -> Iterator[tuple[int, float]]:
        """The tokens of an answer, and the seconds that each took."""
        began, xp = time.perf_counter(), self.model.backend.xp
        cache, known = self.prefixes.lookup(prompt)
        self._cache, self._known, ids = cache, prompt[:known], prompt[known:]
        self.n_read = len(ids)
        memory = remember(self.sampler, self.model.tokens([prompt]), None, xp, self.model.config.vocab_size)
        try:
            for _ in range(n_tokens):
                logits = self._read(ids)
                greedy = self.sampler.temperature == 0
                numbers = None if greedy else xp.from_numpy(uniforms(self.seed, self._drawn, 1, self.sampler.draws))
                drawn, memory = sample(logits, numbers, self.sampler, memory)
                (token,) = xp.to_numpy(drawn).tolist()
                self._drawn += 1
                if token < 0:
                    raise ValueError("the logits are not finite numbers: the model's weights or activations overflow.")
                yield token, time.perf_counter() - began
                if token in self.ends:
                    return
                began, ids = time.perf_counter(), [token]
        finally:
            if self._cache is not None:
                self.prefixes.keep(self._known, self._cache)
                self._cache = None

    def _read(self, ids: list[int]) -> Any:
        """The logits (1, V) after some more tokens, whose keys and values the cache then holds."""
        cache, self._cache = self._cache, None  # an interrupted call leaves it half written
        length, room = len(self._known) + len(ids), self.model.config.max_positions
        if cache is None:
            cache = new_cache(self.model, 1, min(room, max(LEAST, 2 * length)), slack=LEAST)._replace(room=room)
        logits, self._cache = prefill(self.model, self.model.tokens([ids]), cache)
        self._known = self._known + ids
        return logits


def most_bytes(model: Model) -> int:
    """Of the keys and values of one conversation as long as the context."""
    dtype = str(model.params["embedding"].dtype).rpartition(".")[2]
    return cache_bytes(model.architecture, model.config, model.config.max_positions + 2 * LEAST, dtype)
