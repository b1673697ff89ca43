"""Keys and values of texts that were read before, so that of a new one only what is behind their longest common beginning
is read (Kwon 2023, arXiv:2309.06180, section 4.4; Zheng 2023, arXiv:2312.07104, section 3)."""

from collections.abc import Iterable, Sequence

from refllm.layers.cache_blocks import bytes_of
from refllm.layers.kv_cache import KVCache, fork, rewind
from refllm.models.model import Model


class PrefixCache:
    """The texts used last whose keys and values fit a number of bytes, compared with each new one token by token.

    Texts with a common beginning share the blocks that hold it, where one was continued from the other.
    A cache goes back to any beginning of its text, except in layers with a window: these go back by their `slack`, and whole
    texts are all that is certain to be found again.
    """

    def __init__(self, model: Model, max_bytes: int):
        if max_bytes < 1:
            raise ValueError(f"max_bytes={max_bytes} keeps nothing; it must be at least 1.")
        self.model, self.max_bytes = model, max_bytes
        self._entries: dict[tuple[int, ...], KVCache] = {}  # by the tokens read; the one used last is the last

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def n_bytes(self) -> int:
        """Bytes of all blocks kept, those that are shared counted once."""
        return _bytes(self._entries.values())

    def lookup(self, ids: Sequence[int]) -> tuple[KVCache | None, int]:
        """A cache with the longest beginning of a text that is known, and how many tokens that is.

        One token at least is left to read, for the logits behind it. The cache is the caller's, with room for the model's whole
        context; None where no beginning is known.
        """
        ids = tuple(ids)
        known = {text: min(common_prefix(text, ids), len(ids) - 1) for text in self._entries}
        for text in sorted(known, key=lambda text: known[text], reverse=True):
            if known[text] > 0 and (found := _gone_back(self._entries[text], known[text])) is not None:
                self._use(text)
                return found._replace(room=self.model.config.max_positions), known[text]
        return None, 0

    def keep(self, ids: Sequence[int], cache: KVCache) -> None:
        """Remember a text and the cache that holds it and no more. The cache must not be used again; whoever goes on, forks it.

        What was used least recently leaves, as far as there is too much; a text that is larger than all that may be kept is
        not kept. Raises ValueError for a cache of other tokens or several rows.
        """
        ids = tuple(ids)
        if (cache.rows, cache.begin, cache.length) != (1, 0, len(ids)):
            held = f"{cache.rows} rows, with positions {cache.begin} … {cache.length}"
            raise ValueError(f"a text of {len(ids)} tokens needs the cache that holds just them, not one of {held}.")
        cache = cache._replace(layers=tuple(held._replace(spare=()) for held in cache.layers))
        if not ids or _bytes([cache]) > self.max_bytes:
            return
        for text, other in list(self._entries.items()):
            if text[: len(ids)] == ids and _gone_back(other, len(ids)) is not None:
                self._use(text)  # it knows as much and more
                return
            if ids[: len(text)] == text and _gone_back(cache, len(text)) is not None:
                del self._entries[text]
        self._entries[ids] = cache
        while self.n_bytes > self.max_bytes:
            del self._entries[next(iter(self._entries))]

    def _use(self, text: tuple[int, ...]) -> None:
        """Note that a text was used just now."""
        self._entries[text] = self._entries.pop(text)


def common_prefix(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two sequences begin with alike."""
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def _gone_back(cache: KVCache, length: int) -> KVCache | None:
    """A fork of a cache with its first positions only, or None where a window has dropped what it needs. The cache stays."""
    _, other = fork(cache)
    try:
        return rewind(other, length)
    except ValueError:
        return None


def _bytes(caches: Iterable[KVCache]) -> int:
    """Bytes of the blocks of several caches, each block counted once."""
    blocks = {id(b): b for cache in caches for held in cache.layers for b in (*held.keys, *held.values)}
    return sum(map(bytes_of, blocks.values()))
