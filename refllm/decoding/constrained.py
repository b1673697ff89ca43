"""Text held to a form: a regular expression, a JSON schema, or one of several choices.

    allowed(w) = { token : bytes(w) + bytes(token) begins some text of the form }  ∪  { end, where bytes(w) is such a text }

At every step the other tokens get the logit −∞, so whatever a sampler draws, the text comes out in form. llguidance keeps the
form's automaton and walks the vocabulary's bytes through it. A vocabulary that has every byte (byte-level, or SentencePiece
with its fallback) can always go on.
"""

import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from refllm.tokenizer import Tokenizer

SPACE = r"(?: |\n[ \t]{0,16})"  # as people write JSON; more would let a model that has lost its way write nothing else
PLACE = r"^at \d+\(\d+\): "  # in the grammar, which is none of the reader's


@dataclass(frozen=True)
class Form:
    """A set of texts: one terminal or rule of llguidance's dialect of Lark, and what people call it."""

    name: str
    start: str

    def grammar(self, prefix: str = "") -> str:
        """The whole grammar, of texts behind a prefix. no_forcing: every spelling of a text, not only the tokenizer's own."""
        before = f"{json.dumps(prefix)} " if prefix else ""
        return f'%llguidance {{"no_forcing": true}}\nstart: {before}body\n{self.start}'


def by_regex(expression: str) -> Form:
    r"""Texts that match a regular expression whole, in the syntax of Rust's regex crate: no look-around, no references back.

    \d is a digit 0 … 9; \w and \s are of all Unicode.
    Raises ValueError for an expression that is none.
    """
    pattern = _library().regex_to_lark(expression, use_ascii="d")
    return _checked(Form(f"the regular expression {expression!r}", f"body: TEXT\nTEXT: /{pattern}/"))


def by_json_schema(schema: str | Mapping[str, Any]) -> Form:
    """JSON that a schema of draft 2020-12 accepts, with a space between its parts, or a new line and its indentation.

    schema: as an object, or its text
    Raises ValueError for a schema that is no JSON object, or says what llguidance does not know.
    """
    try:
        parsed = json.loads(schema) if isinstance(schema, str) else schema
    except json.JSONDecodeError as error:
        raise ValueError(f"the JSON schema is no JSON: {error}.") from None
    if not isinstance(parsed, Mapping):
        raise ValueError(f'the JSON schema is {type(parsed).__name__}; it must be an object, such as {{"type": "integer"}}.')
    options = parsed.get("x-guidance", {"whitespace_pattern": SPACE})
    return _checked(Form("the JSON schema", f"body: %json {json.dumps({**parsed, 'x-guidance': options})}"))


def by_choices(choices: Collection[str]) -> Form:
    """One of several texts. Raises ValueError where there is none to choose, or one is empty."""
    if isinstance(choices, str) or not choices or not all(choices):
        raise ValueError(f"choices={choices!r} must be several texts, or one, none of them empty.")
    spelled = ("".join(f"\\x{{{ord(character):x}}}" for character in choice) for choice in choices)
    return _checked(Form(f"the {len(choices)} choices", f"body: TEXT\nTEXT: /{'|'.join(spelled)}/"))


def constrain(
    form: Form,
    tokenizer: Tokenizer | None,
    context: Sequence[int] = (),
    vocab_size: int | None = None,
    ends: Collection[int] | None = None,
) -> "Constraint":
    """The beginning of a text in a form, before its first token.

    context: ids that come before; behind none, or behind a special token, SentencePiece drops a space before the first word
    vocab_size: the model's, where it has more logits than the tokenizer has ids; those are never allowed
    ends: ids that end a text; None: the tokenizer's eos. Where there are none, `finished` says when to stop.
    Raises ValueError without a tokenizer, and where its vocabulary cannot spell any text of the form.
    """
    if tokenizer is None:
        raise ValueError("the model has no tokenizer, so nothing holds its text to a form; give it one with its checkpoint.")
    size = tokenizer.vocab_size if vocab_size is None else vocab_size
    usual = () if tokenizer.eos is None else (tokenizer.eos,)
    begins = bool(tokenizer.model.prefix) and (not len(context) or tokenizer.ends_stretch(context[-1]))
    words = _words(tokenizer, size)
    plain = _matcher(form.grammar(), words)
    behind = _matcher(form.grammar(tokenizer.model.prefix), words) if begins else None
    constraint = Constraint(form, tokenizer, size, frozenset(usual if ends is None else ends), plain, behind)
    constraint.allowed()
    return constraint


class Constraint:
    """A text on its way: what may come next, and whether it may, or must, end here. Made by `constrain`."""

    def __init__(self, form: Form, tokenizer: Tokenizer, size: int, ends: frozenset[int], matcher: Any, behind: Any = None):
        self.form, self.tokenizer, self.size, self.ends = form, tokenizer, size, ends
        self._matcher = matcher
        self._behind = behind  # at the beginning of a stretch: the form behind the prefix that decoding takes off
        self._ended = False
        self._mask: np.ndarray | None = None  # of this place in the text, once it is asked for

    @property
    def accepts(self) -> bool:
        """Whether the text, as it stands, is in form."""
        return self._matcher.is_accepting()

    @property
    def finished(self) -> bool:
        """Whether the text is in form and no token can be added to it: only its end may follow."""
        return self._ended or (self.accepts and not self._text_tokens().any())

    def allowed(self) -> np.ndarray:
        """Which tokens may come next: (V,) bool. An end may where the text is in form; nothing may behind an end.

        Raises ValueError where nothing may, though the text is not in form: the vocabulary lacks what should come.
        """
        mask = self._text_tokens().copy()
        if self._ended:
            return mask
        if self.accepts:
            mask[[end for end in self.ends if 0 <= end < self.size]] = True
        elif not mask.any():
            raise ValueError(f"no token of the vocabulary leads on towards {self.form.name}; it lacks bytes that must come next.")
        return mask

    def advance(self, token: int) -> None:
        """Go past a token that was chosen. Raises ValueError for one that is not allowed."""
        token = int(token)
        if token in self.ends and self.accepts and not self._ended:
            self._ended, self._mask = True, np.zeros(self.size, dtype=bool)
            return
        if not (0 <= token < self.size and self._text_tokens()[token]):
            raise ValueError(f"token {token} is not allowed here: the text would leave {self.form.name}.")
        if self._behind is not None and self._has_prefix(token):
            self._matcher = self._behind
        self._matcher.consume_token(token)
        self._behind, self._mask = None, None

    def fork(self) -> "Constraint":
        """The same place in the same text, to go on from twice: for beams, and for a form that several texts are held to."""
        behind = None if self._behind is None else self._behind.deep_copy()
        copy = Constraint(self.form, self.tokenizer, self.size, self.ends, self._matcher.deep_copy(), behind)
        copy._ended, copy._mask = self._ended, self._mask
        return copy

    def _text_tokens(self) -> np.ndarray:
        """The tokens that the text may go on with, its ends aside: (V,) bool, not to be changed."""
        if self._mask is None:
            self._mask = self._mask_of(self._matcher)
            if self._behind is not None:
                prefixed = _prefixed(self.tokenizer, self.size)
                self._mask = np.where(prefixed, self._mask_of(self._behind), self._mask)
        return self._mask

    def _mask_of(self, matcher: Any) -> np.ndarray:
        bits = np.frombuffer(matcher.compute_bitmask(), dtype=np.uint8)
        if matcher.is_error() and not matcher.get_error().startswith("NoExtension"):  # that is told by an empty mask
            raise ValueError(f"llguidance gave up on {self.form.name}: {_sentence(matcher.get_error())}")
        return np.unpackbits(bits, bitorder="little")[: self.size].astype(bool)

    def _has_prefix(self, token: int) -> bool:
        return bool(_prefixed(self.tokenizer, self.size)[token])


class _Words:
    """A vocabulary as llguidance asks for it: the bytes of every id, none for those that no text is made of.

    Those are added tokens, ids left out, and one more behind the last, which stands for the end.
    """

    bos_token_id = None

    def __init__(self, vocabulary: Mapping[int, bytes], size: int):
        self.tokens = [vocabulary.get(id, b"") for id in range(size)] + [b""]
        self.eos_token_id = size
        self.special_token_ids = [size]

    def __call__(self, text: bytes) -> list[int]:
        return []  # asked only for text that is forced, and nothing is


@lru_cache(maxsize=4)
def _words(tokenizer: Tokenizer, size: int) -> Any:
    library = _library()
    return library.LLTokenizer(library.TokenizerWrapper(_Words(tokenizer.model.vocabulary, size)), n_vocab=size + 1)


@lru_cache(maxsize=4)
def _prefixed(tokenizer: Tokenizer, size: int) -> np.ndarray:
    """Which ids begin with what decoding takes off at the beginning of a text: (V,) bool."""
    prefix, vocabulary = tokenizer.model.prefix.encode(), tokenizer.model.vocabulary
    return np.array([vocabulary.get(id, b"").startswith(prefix) for id in range(size)], dtype=bool)


def _matcher(grammar: str, words: Any) -> Any:
    matcher = _library().LLMatcher(words, grammar, log_level=0)
    if matcher.is_error():
        raise ValueError(_sentence(matcher.get_error()))
    return matcher


def _checked(form: Form) -> Form:
    """The form. Raises ValueError where llguidance does not take it."""
    wrong, messages = _library().LLMatcher.validate_grammar_with_warnings(form.grammar())
    if wrong:
        raise ValueError(f"{form.name} cannot be held to: {_sentence(messages[0])}")
    return form


def _sentence(message: str) -> str:
    """The line of an error of llguidance that says what is wrong, without the grammar around it."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    said = next((line.removeprefix("error: ") for line in lines if line.startswith("error: ")), lines[0] if lines else message)
    return f"{re.sub(PLACE, '', said).rstrip('.')}."


def _library() -> Any:
    try:
        import llguidance
    except ImportError as error:
        raise ImportError("constrained decoding needs llguidance; pip install 'refllm[constrained]'.") from error
    return llguidance
