"""The tokenizer: a model of words, the tokens added beside it, and the doors text comes in and goes out by."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from operator import index
from pathlib import Path
from typing import Any, Literal, NamedTuple

from refllm.array_api import Backend, namespace
from refllm.array_api import load as load_backend
from refllm.tokenizer.added_tokens import AddedToken, Finder, Stretch
from refllm.tokenizer.model import MOST_IDS, Model, Span
from refllm.tokenizer.normalizers import Normalizer
from refllm.tokenizer.template import Template
from refllm.tokenizer.text import bounds_before_repair, repaired

LONG = 1 << 15  # characters; a list of the ids of more is not made only to count them
BOS_NAMES = ("<s>", "<|begin_of_text|>")
EOS_NAMES = ("</s>", "<|end_of_text|>", "<|endoftext|>")
MASK_NAMES = ("[MASK]", "<mask>", "<|mask|>")

Specials = Collection[str] | Literal["all"]


class Part(NamedTuple):
    """A part of a text on its way to ids: an added token, or a stretch for the model."""

    text: str  # as the model gets it
    id: int | None  # the added token's
    sources: Sequence[Span]  # for each of its characters, those of the repaired text that it comes from
    span: Span  # all of them


class Tokenizer:
    """Text to token ids and back.

    Ids follow the reference tokenizers exactly, and `decode(encode(text)) == text` for every text where no normalizer changes it.
    (Lone surrogates, which UTF-8 cannot carry, become U+FFFD, as in tiktoken; the U+2581 by which SentencePiece writes a space
    becomes one.)
    bos and eos: the ids that begin and end a document, or None; nothing puts them in unless it is asked to
    normalizer: what changes the text between its added tokens before the model gets it, or None
    template: what the vocabulary's makers put around a text; `with_special_tokens` does
    """

    def __init__(
        self,
        model: Model,
        added: Iterable[AddedToken] = (),
        bos: int | None = None,
        eos: int | None = None,
        normalizer: Normalizer | None = None,
        template: Template | None = None,
    ):
        self.model = model
        self._later: Model = getattr(model, "after_added", model)  # of stretches behind an added token
        self.added_are_words = getattr(model, "added_are_words", False)  # decoded with a space before them, as words are
        self.added = tuple(added)
        self.normalizer = normalizer
        self.template = template
        self._added_ids = {token.content: token.id for token in self.added}
        self._added_contents = {token.id: token.content for token in self.added}
        self._check()
        self._bytes = dict(model.vocabulary) | {token.id: token.content.encode() for token in self.added}
        self._ids: dict[bytes, int] = {}  # the other way round, once it is asked for
        self.vocab_size = max(self._bytes) + 1  # one more than the largest id
        self._always = frozenset(token.content for token in self.added if not token.special)
        self.special_tokens = frozenset(self._added_ids) - self._always
        self._special_ids = frozenset(token.id for token in self.added if token.special)
        self._finders: dict[tuple[frozenset[str], bool | None], Finder] = {}
        for around in (*template.before, *template.behind) if template else ():
            if around not in self._bytes:
                raise ValueError(f"the template puts id {around} around a text, which is not in the vocabulary.")
        self.bos = self.usual_bos if bos is None else bos
        self.eos = self.usual_eos if eos is None else eos
        for name, id in (("bos", self.bos), ("eos", self.eos)):
            if id is not None and id not in self._bytes:
                raise ValueError(f"{name}={id} is not in the vocabulary of {self.vocab_size} tokens.")

    def _check(self) -> None:
        """Raise ValueError unless each added token has a text and an id of its own."""
        for id, content, *_ in self.added:
            if not content or not 0 <= id < MOST_IDS:
                raise ValueError(
                    f"the added token {content!r} with id {id} needs a text, and an id from 0 up, below {MOST_IDS:,}."
                )
            if (other := self._added_contents[id]) != content:
                raise ValueError(f"the added tokens {content!r} and {other!r} share id {id}.")
            if (second := self._added_ids[content]) != id:
                raise ValueError(f"the added token {content!r} has two ids, {id} and {second}.")
            if id in self.model.vocabulary:
                raise ValueError(f"the added token {content!r} has the id {id} of {self.model.vocabulary[id]!r}.")
            if content != repaired(content):
                raise ValueError(f"the added token {content!r} holds a surrogate, which UTF-8 cannot carry.")
        if not self.model.vocabulary and not self.added:
            raise ValueError("the vocabulary is empty.")

    @property
    def usual_bos(self) -> int | None:
        """The id that begins a document by the template, or by its name."""
        if self.template and len(self.template.before) == 1:
            return self.template.before[0]
        return next((self._added_ids[name] for name in BOS_NAMES if name in self._added_ids), None)

    @property
    def usual_eos(self) -> int | None:
        """The id that ends a document by the template, or by its name."""
        if self.template and len(self.template.behind) == 1:
            return self.template.behind[0]
        return next((self._added_ids[name] for name in EOS_NAMES if name in self._added_ids), None)

    @property
    def mask(self) -> int | None:
        """The id of the special token that stands for one to be guessed, by its name."""
        return next((self._added_ids[name] for name in MASK_NAMES if name in self.special_tokens), None)

    def __len__(self) -> int:
        """How many tokens there are; vocab_size is larger where ids are left out."""
        return len(self._bytes)

    def __repr__(self) -> str:
        ends = "".join(
            f", {name} {id} {self._bytes[id].decode('utf-8', 'replace')!r}"
            for name, id in (("bos", self.bos), ("eos", self.eos))
            if id is not None
        )
        return f"<Tokenizer: {type(self.model).__name__}, {len(self):,} tokens, {len(self.added):,} of them added{ends}>"

    # Text to ids

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
        ids = self._end("bos", bos)
        for part in self._parts(text, allowed_special, disallowed_special):
            found = [part.id] if part.id is not None else self._model_of(part).encode(part.text)
            if ids:
                ids.extend(found)
            else:
                ids = found  # and no copy of a long list
        ids.extend(self._end("eos", eos))
        return ids

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
        arrays = [xp.asarray(self._end("bos", bos), dtype=xp.int32)]
        for part in self._parts(text, allowed_special, disallowed_special):
            model = self._model_of(part)
            arrays.append(model.encode_array(part.text, xp) if part.id is None else xp.asarray([part.id], dtype=xp.int32))
        arrays.append(xp.asarray(self._end("eos", eos), dtype=xp.int32))
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
        together = getattr(self.model, "encode_batch", None)
        if together is None or self._later is not self.model:
            return [self.encode(text, allowed_special, disallowed_special, bos=bos, eos=eos) for text in texts]
        parts = [list(self._parts(text, allowed_special, disallowed_special)) for text in texts]
        encoded = iter(together([part.text for of_text in parts for part in of_text if part.id is None]))
        before, after = self._end("bos", bos), self._end("eos", eos)
        batch = []
        for of_text in parts:
            ids = list(before)
            for part in of_text:
                ids += next(encoded) if part.id is None else [part.id]
            batch.append(ids + after)
        return batch

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
        ids = self._end("bos", bos)
        spans = [(0, 0)] * len(ids)
        for part in self._parts(text, allowed_special, disallowed_special, aligned=True):
            if part.id is None:
                found, places = self._model_of(part).encode_with_offsets(part.text)
                ids += found
                spans += [_source(part, start, end) for start, end in places]
            else:
                ids.append(part.id)
                spans.append(part.span)
        bounds = bounds_before_repair(text)
        after = self._end("eos", eos)
        return ids + after, [(bounds[start], bounds[end]) for start, end in spans] + [(len(text), len(text))] * len(after)

    def count(self, text: str, allowed_special: Specials = (), disallowed_special: Specials = "all") -> int:
        """How many ids a text has."""
        if len(text) <= LONG:
            return len(self.encode(text, allowed_special, disallowed_special))
        return self.encode_array(text, allowed_special, disallowed_special, backend="numpy").shape[0]

    def _model_of(self, part: Part) -> Model:
        return self._later if part.span[0] else self.model

    def with_special_tokens(self, ids: Iterable[int]) -> list[int]:
        """The ids with what the vocabulary's makers put around a text, such as <s> before it; Hugging Face does so by default."""
        template = self.template or Template()
        return [*template.before, *ids, *template.behind]

    # Ids to text

    def decode(self, ids: Any, skip_special: bool = False) -> str:
        """The text that the ids stand for; bytes that are no UTF-8 become U+FFFD.

        ids: whole numbers, as any iterable or as an array (tokens,) of any backend
        skip_special: whether special tokens are left out
        Raises ValueError for an id outside the vocabulary or an array of several axes, TypeError for what is no whole number.
        """
        return self.decode_bytes(ids, skip_special).decode("utf-8", "replace")

    def decode_bytes(self, ids: Any, skip_special: bool = False) -> bytes:
        """The bytes of the text that the ids stand for, as in `decode`."""
        ids = _whole_numbers(ids)
        prefix = self.model.prefix.encode()
        if not skip_special and (not prefix or self._added_contents.keys().isdisjoint(ids)):
            try:
                return b"".join(map(self._bytes.__getitem__, ids)).removeprefix(prefix)
            except KeyError as error:
                raise self._unknown(error.args[0]) from None
        if skip_special and self.added_are_words:
            ids = [id for id in ids if id not in self._special_ids]
        tokens = self.stretches(ids) if self.model.prefix else map(self.bytes_of, ids)
        if skip_special:
            tokens = (token for id, token in zip(ids, tokens, strict=True) if id not in self._special_ids)
        return b"".join(tokens)

    def tokens(self, ids: Any) -> list[bytes]:
        """The bytes of each id, in the middle of a text. Raises as `decode` does."""
        return list(map(self.bytes_of, _whole_numbers(ids)))

    def stretches(self, ids: Iterable[int], begins: bool = True) -> Iterator[bytes]:
        """The bytes of each id, the model's prefix taken off where a stretch of text begins: at first, and after an added token.

        Where added tokens are words among others they have the prefix too, and it is taken off at first only.
        begins: whether a stretch begins with the first id
        """
        prefix = self.model.prefix.encode()
        for id in ids:
            token = self.bytes_of(id)
            if self.added_are_words and self.is_added(id):
                token = prefix + token
            yield token.removeprefix(prefix) if begins else token
            begins = self.ends_stretch(id)

    def ends_stretch(self, id: int) -> bool:
        """Whether the next token begins a stretch of text, and loses the prefix when it is decoded."""
        if self.added_are_words or not self._later.prefix:
            return False
        return self.is_added(id) and id != getattr(self.model, "unknown", None)

    def bytes_of(self, id: int) -> bytes:
        """The bytes of one token, in the middle of a text. Raises ValueError for an id outside the vocabulary."""
        try:
            return self._bytes[index(id)]
        except KeyError:
            raise self._unknown(id) from None

    def _unknown(self, id: int) -> ValueError:
        return ValueError(f"token id {id} is not in the vocabulary of {self.vocab_size} tokens.")

    def is_added(self, id: int) -> bool:
        """Whether an id is that of an added token rather than of the model's vocabulary."""
        return index(id) in self._added_contents

    def is_special(self, id: int) -> bool:
        """Whether an id is that of a special token."""
        return index(id) in self._special_ids

    def id_of(self, content: str | bytes) -> int:
        """The id of a token: an added one such as "<|endoftext|>", or that of these bytes. Raises ValueError for no token."""
        if isinstance(content, str) and content in self._added_ids:
            return self._added_ids[content]
        if not self._ids:
            self._ids = {token: id for id, token in sorted(self.model.vocabulary.items(), reverse=True)}
        data = repaired(content).encode() if isinstance(content, str) else content
        if data not in self._ids:
            added = ", ".join(sorted(self._added_ids)) or "none"
            raise ValueError(f"{content!r} is no token of the vocabulary; added tokens: {added}.")
        return self._ids[data]

    # Files

    @classmethod
    def load(cls, path: str | Path, merges: str | Path | None = None, pattern: str | None = None) -> "Tokenizer":
        """Open a tokenizer's file, or a folder that holds one, and find out which it is:

        Hugging Face's tokenizer.json, GPT-2's vocab.json with its merges, tiktoken's ranks (with the pattern that cuts text into
        words, where the name does not say it), SentencePiece's tokenizer.model, Mistral's tekken.json, BERT's vocab.txt,
        llama2.c's tokenizer.bin.
        Raises FileNotFoundError where there is none, ValueError for a file that is damaged or of a kind not known.
        """
        from refllm.tokenizer.formats.files import load

        return load(Path(path), None if merges is None else Path(merges), pattern)

    def save(self, path: str | Path) -> None:
        """Write a tokenizer.json that Hugging Face tokenizers reads to the same ids; a folder gets the file of that name."""
        from refllm.tokenizer.formats.hugging_face import save

        save(self, Path(path))

    # The way of a text

    def _parts(self, text: str, allowed: Specials, disallowed: Specials, aligned: bool = False) -> Iterator[Part]:
        """The text as its added tokens and the stretches between, normalized. aligned: whether their sources are wanted."""
        if not isinstance(text, str):
            hint = " Decode bytes first: data.decode('utf-8')." if isinstance(text, bytes) else ""
            raise TypeError(f"text is {type(text).__name__}; encode needs str.{hint}")
        found = self._always | self._allowed(text, allowed, disallowed)
        text = repaired(text)
        for first, last, token in self._cut(text, found, normalized=False):
            stretch = text[first:last]
            sources: Sequence[Span] = _Places(first, last)
            if token is not None:
                yield Part(stretch, token.id, sources, (first, last))
                continue
            if self.normalizer is not None:
                if aligned:
                    stretch, own = self.normalizer.aligned(stretch)
                    sources = [(first + start, first + end) for start, end in own]
                else:
                    stretch = self.normalizer.apply(stretch)
            for start, end, inner in self._cut(stretch, found, normalized=True):
                whole = (sources[start][0], sources[end - 1][1]) if aligned else (first, last)
                yield Part(stretch[start:end], inner.id if inner else None, sources[start:end] if aligned else (), whole)

    def _allowed(self, text: str, allowed: Specials, disallowed: Specials) -> frozenset[str]:
        """The special tokens that are allowed. Raises ValueError where the text spells one that it must not."""
        permitted = self.special_tokens if allowed == "all" else self.special_tokens & frozenset(allowed)
        refused = self.special_tokens - permitted if disallowed == "all" else self.special_tokens & frozenset(disallowed)
        if refused:
            pattern = self._finder(refused, None).pattern
            if pattern and (match := pattern.search(text)):
                raise ValueError(
                    f"the text spells the special token {match.group()!r} at character {match.start()}; pass allowed_special="
                    f"{{{match.group()!r}}} to give it its id, or disallowed_special=() to encode it as ordinary text."
                )
        return permitted

    def _cut(self, text: str, contents: frozenset[str], normalized: bool) -> Iterable[Stretch]:
        """The text cut at those of the added tokens that are looked for before it is normalized, or after."""
        finder = self._finder(contents, normalized)
        if finder.pattern is None:
            return (Stretch(0, len(text), None),) if text else ()
        return finder.cut(text)

    def _finder(self, contents: frozenset[str], normalized: bool | None) -> Finder:
        """What finds those of the tokens that are normalized, or not; all, as they are spelled, where that is None."""
        finder = self._finders.get((contents, normalized))
        if finder is None:
            tokens = [t for t in self.added if t.content in contents and normalized in (None, t.normalized)]
            tokens.sort(key=lambda token: not token.special)
            spelled = [(self._normalized(t.content) if normalized else t.content, t) for t in tokens]
            finder = self._finders[contents, normalized] = Finder((content, t) for content, t in spelled if content)
        return finder

    def _normalized(self, text: str) -> str:
        return text if self.normalizer is None else self.normalizer.apply(text)

    def _end(self, name: Literal["bos", "eos"], wanted: bool) -> list[int]:
        """The id at an end of a document, where it is wanted."""
        if not wanted:
            return []
        id = self.bos if name == "bos" else self.eos
        if id is None:
            raise ValueError(f"{name}=True needs a token for it, and this vocabulary has none; pass Tokenizer(…, {name}=id).")
        return [id]


class _Places(Sequence[Span]):
    """The spans of characters first … last − 1, each its own."""

    def __init__(self, first: int, last: int):
        self.first, self.last = first, last

    def __len__(self) -> int:
        return self.last - self.first

    def __getitem__(self, place: Any) -> Any:
        if isinstance(place, slice):
            start, stop, _ = place.indices(len(self))
            return _Places(self.first + start, self.first + stop)
        return self.first + place, self.first + place + 1


def _source(part: Part, start: int, end: int) -> Span:
    """The characters of the repaired text that those of a part come from; where there are none, the place between."""
    if start < end:
        return part.sources[start][0], part.sources[end - 1][1]
    place = part.sources[start][0] if start < len(part.text) else part.span[1]
    return place, place


def _whole_numbers(ids: Any) -> list[int]:
    """Ids as a list of int. Raises ValueError and TypeError as `Tokenizer.decode` does."""
    if hasattr(ids, "shape"):
        array = ids if hasattr(ids, "tolist") else namespace(ids).to_numpy(ids)
        if len(array.shape) != 1:
            raise ValueError(f"ids has shape {tuple(array.shape)}; decode needs (tokens,). For a batch decode each row.")
        ids = array.tolist()
    elif isinstance(ids, (str, bytes, Mapping)) or not isinstance(ids, Iterable):
        raise TypeError(f"ids is {type(ids).__name__}; decode needs token ids, such as [1, 2]. For one id write [id].")
    ids = list(ids)
    if set(map(type, ids)) <= {int}:
        return ids
    try:
        return [index(id) for id in ids]
    except TypeError:
        wrong = next(id for id in ids if not hasattr(id, "__index__"))
        raise TypeError(f"token id {wrong!r} is {type(wrong).__name__}; ids are whole numbers.") from None
