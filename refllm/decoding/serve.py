"""Continuous batching (Yu et al. 2022, "Orca", OSDI): texts are written side by side, and each comes and goes on its own.

    the text of a request = the text that it gets alone

Between two steps rows that are done leave, and prompts that have been read take their places. A row sees itself only, draws its
own numbers and is sampled by its own sampler, so that it matters to no text which others are written beside it.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from refllm.decoding.batch import Batch, Newcomer
from refllm.decoding.cache import new_cache
from refllm.decoding.choose import Chosen, Group, choose, gather, scatter
from refllm.decoding.fit import check_overflow
from refllm.decoding.generate import check_continues, prefill
from refllm.decoding.memory import remember
from refllm.decoding.prefix_cache import PrefixCache
from refllm.decoding.request import Event, Request, Row
from refllm.layers.kv_cache import KVCache, fork
from refllm.models.model import Model


def serve(
    model: Model,
    requests: Iterable[Request],
    rows: int,
    *,
    room: int | None = None,
    chunk: int | None = None,
    overflow: str = "error",
    prefixes: PrefixCache | None = None,
    quantised: bool = False,
) -> Iterator[Event]:
    """Answer requests, up to `rows` of them side by side; events come as tokens are chosen.

    requests: read one at a time, when a row is free for it; what waits for the next one waits with it
    room: the most positions that a prompt and its text take together; None: the model's context. It decides the memory
    chunk: most positions of a prompt that are read between two steps, while others wait; None: the whole prompt
    overflow: what happens to a prompt that is too long, see `fit`
    prefixes: spares beginnings that were read before, and keeps those of these prompts
    quantised: keep keys and values in eight bits, as the prefixes must be too
    A request that cannot be answered, or whose logits stop being numbers, ends with an event that says why; the others go on.
    Raises ValueError, at once, for a model that cannot continue a text, and for settings that leave nothing to do.
    """
    check_continues(model)
    check_overflow(overflow)
    most = model.config.max_positions
    if rows < 1:
        raise ValueError(f"rows={rows} leaves no place for a text; it must be at least 1.")
    if chunk is not None and chunk < 1:
        raise ValueError(f"chunk={chunk} reads nothing of a prompt; it must be at least 1.")
    if room is not None and not 2 <= room <= most:
        raise ValueError(f"room={room} must be from 2, a prompt and a token, to the model's context of {most}.")
    service = _Service(model, iter(requests), rows, most if room is None else room, chunk, overflow, prefixes, quantised)
    return service.events()


class _Reading:
    """A prompt that is being read."""

    def __init__(self, model: Model, row: Row, cache: KVCache, known: int):
        self.model, self.row, self.cache, self.known = model, row, cache, known
        self.logits: Any = None  # (1, V), after the tokens known

    def read(self, chunk: int | None) -> bool:
        """Read some positions more; whether that was all."""
        ids = self.row.ids[self.known :][:chunk]
        self.logits, self.cache = prefill(self.model, self.model.tokens([ids]), self.cache)
        self.known += len(ids)
        return self.known == len(self.row.ids)


class _Service:
    """What is being written, what is being read, and what is chosen and not told yet."""

    def __init__(
        self, model: Model, requests: Iterator[Request], rows: int, room: int, chunk, overflow: str, prefixes, quantised: bool
    ):
        self.model, self.xp, self.requests, self.most = model, model.backend.xp, enumerate(requests), rows
        self.room, self.chunk, self.overflow, self.prefixes = room, chunk, overflow, prefixes
        self.quantised, self.batch = quantised, Batch[Row](model, room, quantised)
        self.groups: list[Group] = []  # of the batch's rows
        self.newcomers: list[Newcomer[Row]] = []  # read, and not in the batch yet
        self.reading: _Reading | None = None
        self.untold: list[Chosen] = []
        self.over = False  # whether no requests come any more

    def events(self) -> Iterator[Event]:
        while True:
            yield from self._take_in()
            self._change()
            if self.batch.rows:
                self._step()
                yield from self._tell()
            else:
                yield from self._tell(0)
                if self.over:
                    return

    def _take_in(self) -> Iterator[Event]:
        """Read prompts while there are rows free; of a long one no more than a chunk, where others wait to go on."""
        while sum(not row.leaves for row in self._rows()) < self.most:
            if self.reading is None:
                yield from self._open()
                if self.over:
                    return
                continue
            if self.reading.read(self.chunk):
                self._welcome(self.reading)
                self.reading = None
                yield from self._tell()
            if self.chunk is not None and self._rows():
                return

    def _open(self) -> Iterator[Event]:
        """Begin to read the next request, or tell what is wrong with it."""
        number, request = next(self.requests, (0, None))
        if request is None:
            self.over = True
            return
        try:
            row = Row(self.model, number, request, self.room, self.overflow)
        except ValueError as error:
            yield Event(number, None, "", 0.0, finish="error", error=str(error))
            return
        prompt, xp = row.ids, self.xp
        sampler, V = request.sampler, self.model.config.vocab_size
        row.memory = remember(sampler, self.model.tokens([prompt]), None, xp, V)
        self.reading = _Reading(self.model, row, *self._cache_for(prompt))

    def _cache_for(self, prompt: list[int]) -> tuple[KVCache, int]:
        """A cache of one row for a prompt, and how much of the prompt it holds."""
        cache, known = (None, 0) if self.prefixes is None else self.prefixes.lookup(prompt)
        if cache is not None:
            return cache, known
        whole = self.most == 1 or self.prefixes is not None  # of others the keys and values are copied to the batch's
        return new_cache(self.model, 1, self.room if whole else len(prompt), quantised=self.quantised), 0

    def _welcome(self, read: _Reading) -> None:
        """Choose the first token of a prompt that has been read."""
        if self.prefixes is not None:
            read.cache, kept = fork(read.cache)  # the row goes on writing to its own
            self.prefixes.keep(read.row.ids, kept)
        chosen, groups = choose(read.logits, [read.row], gather([read.row]), self.xp)
        scatter(groups, [read.row])
        self.newcomers.append(Newcomer(read.row, read.cache, chosen.tokens))
        self._send(chosen)

    def _change(self) -> None:
        """Let those who are done leave the batch, and those who came join it."""
        leaving = [b for b, row in enumerate(self.batch.rows) if row.leaves]
        joining = [newcomer for newcomer in self.newcomers if not newcomer.row.leaves]
        self.newcomers = []
        if leaving or joining:
            scatter(self.groups, self.batch.rows)
            self.batch.change(leaving, joining)
            self.groups = gather(self.batch.rows)

    def _step(self) -> None:
        """Choose one token more for every row."""
        chosen, self.groups = choose(self.batch.step(), self.batch.rows, self.groups, self.xp)
        self.batch.tokens = chosen.tokens
        self._send(chosen)

    def _send(self, chosen: Chosen) -> None:
        """Let a backend that computes while the host goes on begin."""
        self.xp.async_evaluate(chosen.tokens)
        self.untold.append(chosen)

    def _tell(self, behind: int | None = None) -> Iterator[Event]:
        """The events of what was chosen, but for so many steps; None: one, where that keeps the device busy, else none."""
        if behind is None:
            free = all(row.request.constraint is None for row in self._rows())  # constraints must see each token
            behind = int(self.model.backend.asynchronous and free)
        while len(self.untold) > behind:
            yield from self.untold.pop(0).events(self.xp)

    def _rows(self) -> list[Row]:
        """Those in the batch, and those that are about to join it."""
        return [*self.batch.rows, *(newcomer.row for newcomer in self.newcomers)]
