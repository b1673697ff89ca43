"""The tokenizer: a model of words, the tokens added beside it, and the doors text comes in and goes out by."""

import re
from collections.abc import Collection, Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

from refllm.array_api import Backend
from refllm.array_api import load as load_backend
from refllm.tokenizer.model import Model, Span
from refllm.tokenizer.text import bounds_before_repair, repaired

LONG = 1 << 15  # characters; a list of the ids of more is not made only to count them


class AddedToken(NamedTuple):
    """A token found in the text as it stands, before any word. A special one, such as <|endoftext|>, only where it is allowed."""

    id: int
    content: str
    special: bool


Specials = Collection[str] | Literal["all"]


class Tokenizer:
    """Text to token ids and back.

    Ids follow the reference tokenizers exactly, and `decode(encode(text)) == text` for every text. (Lone surrogates, which UTF-8
    cannot carry, become U+FFFD, as in tiktoken; the U+2581 by which SentencePiece writes a space becomes one.)
    bos and eos: the ids that begin and end a document, or None; nothing puts them in by itself.
    """

    def __init__(self, model: Model, added: Iterable[AddedToken] = (), bos: int | None = None, eos: int | None = None):
        self.model = model
        self.added = tuple(added)
        self._added_ids = {token.content: token.id for token in self.added}
        self._added_contents = {token.id: token.content for token in self.added}
        self._check()
        self._bytes = dict(model.vocabulary) | {token.id: token.content.encode() for token in self.added}
        self.vocab_size = max(self._bytes) + 1  # one more than the largest id
        self._always = frozenset(token.content for token in self.added if not token.special)
        self.special_tokens = frozenset(self._added_ids) - self._always
        self.bos = self._first_id("<s>", "<|begin_of_text|>") if bos is None else bos
        self.eos = self._first_id("</s>", "<|end_of_text|>", "<|endoftext|>") if eos is None else eos
        for name, id in (("bos", self.bos), ("eos", self.eos)):
            if id is not None and id not in self._bytes:
                raise ValueError(f"{name}={id} is not in the vocabulary of {self.vocab_size} tokens.")

    def _check(self) -> None:
        """Raise ValueError unless each added token has a text and an id of its own."""
        for id, content, _ in self.added:
            if not content or id < 0:
                raise ValueError(f"the added token {content!r} with id {id} needs a text, and an id from 0 up.")
            if (other := self._added_contents[id]) != content:
                raise ValueError(f"the added tokens {content!r} and {other!r} share id {id}.")
            if (second := self._added_ids[content]) != id:
                raise ValueError(f"the added token {content!r} has two ids, {id} and {second}.")
            if id in self.model.vocabulary:
                raise ValueError(f"the added token {content!r} has the id {id} of {self.model.vocabulary[id]!r}.")

    def _first_id(self, *names: str) -> int | None:
        return next((self._added_ids[name] for name in names if name in self._added_ids), None)

    def encode(
        self,
        text: str,
        allowed_special: Specials = (),
        disallowed_special: Specials = "all",
        *,
        bos: bool = False,
        eos: bool = False,
    ) -> list[int]:
        """The ids of a text.

        allowed_special: special tokens that stand for their id where the text spells them, or "all"
        disallowed_special: those that the text must not spell, or "all" that are not allowed; the rest is ordinary text
        bos, eos: whether the id that begins, or ends, a document is put around
        Raises TypeError for text that is not str, ValueError for a disallowed special token in the text (as tiktoken does) and
        for bos or eos where the vocabulary has none.
        """
        ids = self._around(bos, "bos")
        for piece, id in self._pieces(text, allowed_special, disallowed_special):
            if id is None:
                ids.extend(self.model.encode(piece))
            else:
                ids.append(id)
        return ids + self._around(eos, "eos")

    def encode_array(
        self,
        text: str,
        allowed_special: Specials = (),
        disallowed_special: Specials = "all",
        *,
        bos: bool = False,
        eos: bool = False,
        backend: str | Backend | None = None,
    ) -> Any:
        """The same ids as an array of a backend, the one in use where none is named: (tokens,) int32."""
        xp = load_backend(backend).xp
        arrays = [xp.asarray(self._around(bos, "bos"), dtype=xp.int32)]
        for piece, id in self._pieces(text, allowed_special, disallowed_special):
            arrays.append(self.model.encode_array(piece, xp) if id is None else xp.asarray([id], dtype=xp.int32))
        arrays.append(xp.asarray(self._around(eos, "eos"), dtype=xp.int32))
        return xp.concat(arrays, axis=0)

    def encode_batch(
        self,
        texts: Iterable[str],
        allowed_special: Specials = (),
        disallowed_special: Specials = "all",
        *,
        bos: bool = False,
        eos: bool = False,
    ) -> list[list[int]]:
        """The ids of each text."""
        if isinstance(texts, str):
            raise TypeError("texts is one str; encode_batch needs several, such as [text]. For one text use encode.")
        return [self.encode(text, allowed_special, disallowed_special, bos=bos, eos=eos) for text in texts]

    def count(self, text: str, allowed_special: Specials = (), disallowed_special: Specials = "all") -> int:
        """How many ids a text has."""
        if len(text) <= LONG:
            return len(self.encode(text, allowed_special, disallowed_special))
        return self.encode_array(text, allowed_special, disallowed_special, backend="numpy").shape[0]

    def encode_with_offsets(
        self,
        text: str,
        allowed_special: Specials = (),
        disallowed_special: Specials = "all",
        *,
        bos: bool = False,
        eos: bool = False,
    ) -> tuple[list[int], list[Span]]:
        """The ids of a text, and the characters that each covers: text[start:end]; bos and eos cover none.

        A token that holds part of a character's bytes covers all of it.
        """
        ids = self._around(bos, "bos")
        spans = [(0, 0)] * len(ids)
        position = 0
        for piece, id in self._pieces(text, allowed_special, disallowed_special):
            found, places = ([id], [(0, len(piece))]) if id is not None else self.model.encode_with_offsets(piece)
            ids += found
            spans += [(position + start, position + end) for start, end in places]
            position += len(piece)
        bounds = bounds_before_repair(text)
        after = self._around(eos, "eos")
        return ids + after, [(bounds[start], bounds[end]) for start, end in spans] + [(len(text), len(text))] * len(after)

    def _around(self, wanted: bool, name: str) -> list[int]:
        if not wanted:
            return []
        id = getattr(self, name)
        if id is None:
            raise ValueError(f"{name}=True needs a token for it, which this vocabulary has not; pass Tokenizer(…, {name}=id).")
        return [id]

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """The bytes of the text that the ids stand for. Raises ValueError for an id outside the vocabulary."""
        return b"".join(self.stretches(ids)) if self.model.prefix else b"".join(map(self.bytes_of, ids))

    def stretches(self, ids: Iterable[int], begins: bool = True) -> Iterator[bytes]:
        """The bytes of each id, the model's prefix taken off where a stretch of text begins: at first, and after an added token.

        begins: whether a stretch begins with the first id
        """
        prefix = self.model.prefix.encode()
        for id in ids:
            token = self.bytes_of(id)
            yield token.removeprefix(prefix) if begins else token
            begins = self.is_added(id)

    def decode(self, ids: Iterable[int]) -> str:
        """The text that the ids stand for; bytes that are no UTF-8 become U+FFFD."""
        return self.decode_bytes(ids).decode("utf-8", "replace")

    def bytes_of(self, id: int) -> bytes:
        """The bytes of one token, in the middle of a text. Raises ValueError for an id outside the vocabulary."""
        try:
            return self._bytes[int(id)]
        except KeyError:
            raise ValueError(f"token id {id} is not in the vocabulary of {self.vocab_size} tokens.") from None

    def is_added(self, id: int) -> bool:
        """Whether an id is that of an added token rather than of the model's vocabulary."""
        return int(id) in self._added_contents

    def id_of(self, content: str) -> int:
        """The id of an added token, such as "<|endoftext|>". Raises ValueError where there is none of that name."""
        if content not in self._added_ids:
            raise ValueError(f"{content!r} is not an added token; there are: {', '.join(sorted(self._added_ids)) or 'none'}.")
        return self._added_ids[content]

    @classmethod
    def load(cls, path: str | Path, merges: str | Path | None = None, pattern: str | None = None) -> "Tokenizer":
        """Open a tokenizer's file, or a folder that holds one, and find out which it is:

        Hugging Face's tokenizer.json, GPT-2's vocab.json with its merges, tiktoken's ranks (with the pattern that cuts text into
        words, where the name does not say it), SentencePiece's tokenizer.model, llama2.c's tokenizer.bin.
        Raises FileNotFoundError where there is none, ValueError for a file that is damaged or of a kind not known.
        """
        from refllm.tokenizer.formats.files import load

        return load(Path(path), None if merges is None else Path(merges), pattern)

    def save(self, path: str | Path) -> None:
        """Write a tokenizer.json that Hugging Face tokenizers reads to the same ids; a folder gets the file of that name."""
        from refllm.tokenizer.formats.hugging_face import save

        save(self, Path(path))

    def _pieces(self, text: str, allowed: Specials, disallowed: Specials) -> Iterator[tuple[str, int | None]]:
        """The text cut at its added tokens: (stretch of text, None) or (added token, its id)."""
        if not isinstance(text, str):
            hint = " Decode bytes first: data.decode('utf-8')." if isinstance(text, bytes) else ""
            raise TypeError(f"text is {type(text).__name__}; encode needs str.{hint}")
        allowed = self.special_tokens if allowed == "all" else self.special_tokens & frozenset(allowed)
        disallowed = self.special_tokens - allowed if disallowed == "all" else self.special_tokens & frozenset(disallowed)
        if disallowed and (match := _finder(disallowed).search(text)):
            raise ValueError(
                f"the text spells the special token {match.group()!r} at character {match.start()}; pass allowed_special="
                f"{{{match.group()!r}}} to give it its id, or disallowed_special=() to encode it as ordinary text."
            )
        text = repaired(text)
        start = 0
        if found := self._always | allowed:
            for match in _finder(found).finditer(text):
                if match.start() > start:
                    yield text[start : match.start()], None
                yield match.group(), self._added_ids[match.group()]
                start = match.end()
        if start < len(text):
            yield text[start:], None


@lru_cache(maxsize=64)
def _finder(contents: frozenset[str]) -> re.Pattern:
    """Finds any of these strings, the longest where several begin."""
    return re.compile("|".join(map(re.escape, sorted(contents, key=len, reverse=True))))
