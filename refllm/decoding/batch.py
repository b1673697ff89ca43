"""The rows of one cache that decode together, each at its own position: they come and go between steps.

There is no row without a text. A newcomer takes the place of a row that has left; where nobody comes, the others close up.
"""

from collections.abc import Collection, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

from refllm.decoding.cache import new_cache
from refllm.decoding.generate import decode
from refllm.layers.cache_rows import join, take_rows
from refllm.layers.kv_cache import KVCache
from refllm.models.model import Model

R = TypeVar("R")  # whatever the caller knows a row by


class Newcomer(NamedTuple, Generic[R]):
    """A row that has been read on its own."""

    row: R
    cache: KVCache  # of one row: the keys and values of its prompt
    token: Any  # (1,) int32, its first token, which is read next


class Batch(Generic[R]):
    """Rows that decode together. room: the most positions that any of them takes    quantised: whether in eight bits"""

    def __init__(self, model: Model, room: int, quantised: bool = False):
        self.model, self.room, self.quantised = model, room, quantised
        self.rows: list[R] = []  # as they lie in the cache
        self.cache: Any = None  # KVCache of B rows; None where there are none
        self.tokens: Any = None  # (B,) int32, the last token chosen for each row

    def change(self, leaving: Collection[int], newcomers: Sequence[Newcomer[R]]) -> None:
        """Let the rows at some places leave, and others join. A newcomer's cache must not be used again."""
        if not leaving and not newcomers:
            return
        B = len(self.rows)
        if B == 0 and len(newcomers) == 1 and newcomers[0].cache.room >= self.room:
            ((row, self.cache, self.tokens),) = newcomers
            self.rows = [row]
            return
        places = sorted(leaving)
        joining = {b: j for j, b in enumerate([*places, *range(B, B + len(newcomers))][: len(newcomers)])}
        empty = set(places) - joining.keys()
        width = max([B, *(b + 1 for b in joining)])
        self._widen(B, width)
        for b, j in joining.items():
            self.cache = join(self.cache, b, newcomers[j].cache)
        kept = [b for b in range(width) if b not in empty]
        self.rows = [newcomers[joining[b]].row if b in joining else self.rows[b] for b in kept]
        self._feed(B, [B + joining[b] if b in joining else b for b in kept], [newcomer.token for newcomer in newcomers])
        if not kept:
            self.cache = None
        elif empty:
            self.cache = take_rows(self.cache, kept)

    def step(self) -> Any:
        """Read each row's last token. Returns the logits of the next: (B, V)."""
        logits, self.cache = decode(self.model, self.tokens[:, None], self.cache)
        return logits

    def _widen(self, B: int, width: int) -> None:
        """Give the cache so many rows, of which the new ones hold nothing of use."""
        if B == 0:
            self.cache = new_cache(self.model, width, self.room, quantised=self.quantised)
        elif width > B:
            self.cache = take_rows(self.cache, [*range(B), *[0] * (width - B)])

    def _feed(self, B: int, sources: list[int], tokens: list[Any]) -> None:
        """Put side by side the tokens that come next, each from its place among the B old ones and the newcomers'."""
        xp = self.model.backend.xp
        if sources == list(range(B)) and not tokens:
            return
        before = [self.tokens] if B else []
        self.tokens = xp.take(xp.concat([*before, *tokens], axis=0), xp.asarray(sources, dtype=xp.int32), axis=0)
