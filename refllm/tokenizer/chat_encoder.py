"""Conversations as token ids: special tokens where the chat template puts them, and nowhere else.

A message may spell a special token, "<|im_end|>" for instance. Were the rendered text simply encoded, whoever wrote the message
could end his turn and speak for the system. So before rendering the spellings in messages are put between two marks, characters
that occur nowhere in the conversation; of the rendered text, what stands between marks is ordinary text. The template's own
special tokens are replaced by stand-ins, and a tokenizer that knows the stand-ins only encodes the whole.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from refllm.tokenizer.added_tokens import AddedToken, Finder, is_word
from refllm.tokenizer.chat_template import Message, plain, render
from refllm.tokenizer.tokenizer import Tokenizer

NONCHARACTERS = [chr(code) for code in range(0xFDD0, 0xFDF0)]  # Unicode's for use within a program


class ChatEncoder:
    """A tokenizer, and the chat template of its model.

    variables: bos_token, eos_token and what else the template reads; the tokenizer's own where they are not given
    Special are here the special tokens of the tokenizer, and those added tokens that the template writes.
    """

    def __init__(self, tokenizer: Tokenizer, template: str, variables: Mapping[str, Any] | None = None):
        self.tokenizer, self.template = tokenizer, template
        ends = {"bos_token": tokenizer.bos, "eos_token": tokenizer.eos}
        own = {name: tokenizer.bytes_of(id).decode() for name, id in ends.items() if id is not None}
        self.variables = own | dict(variables or {})
        controls = [t for t in tokenizer.added if t.special or (t.content in template and t.content.strip())]
        self._finder = Finder((token.content, token) for token in controls)
        self._beginnings = frozenset(content[:n] for content in self._finder.tokens for n in range(1, len(content)))
        self._longest = max(map(len, self._beginnings), default=0)
        self._copies: dict[str, Tokenizer] = {}

    def render(self, messages: Sequence[Message], add_generation_prompt: bool = False) -> str:
        """The text of a conversation. Raises as `refllm.tokenizer.chat_template.render` does."""
        return render(messages, self.template, add_generation_prompt, **self.variables)

    def encode(self, messages: Sequence[Message], add_generation_prompt: bool = False) -> list[int]:
        """The ids of a conversation. A special token that a message spells is ordinary text.

        Raises as `render` does, and ValueError for a template that does something else where a message spells one.
        """
        opening, closing, stand_in = self._unused(messages)
        marked, now = self._marked(plain(messages), opening, closing), datetime.now()
        rendered = render(marked, self.template, add_generation_prompt, now=now, **self.variables)
        if marked != plain(messages):
            expected = render(messages, self.template, add_generation_prompt, now=now, **self.variables)
            if _without(rendered, opening, closing) != expected:
                raise ValueError(
                    "a message spells a special token, or ends as one begins, and the chat template treats the marks around it "
                    "as text of the message; reword the message."
                )
        text = self._stood_in(rendered, opening, closing, stand_in)
        return self._copy(stand_in).encode(_without(text, opening, closing), allowed_special="all")

    def end_of_turn(self) -> int | None:
        """The id of the special token that the template puts behind an answer, None where it puts none."""
        answer = "Yes0"
        try:
            text = self.render([{"role": "user", "content": "Now?"}, {"role": "assistant", "content": answer}])
        except ValueError:
            return None
        rest = text.rpartition(answer)[2].lstrip()
        match = self._finder.pattern.match(rest) if self._finder.pattern and answer in text else None
        return self._finder.tokens[match.group()].id if match else None

    def _unused(self, messages: Sequence[Message]) -> list[str]:
        """Three characters that neither the conversation nor the template holds."""
        held = {c for text in (*_texts(messages), *_texts(self.variables), self.template) for c in text if c in NONCHARACTERS}
        unused = [c for c in NONCHARACTERS if c not in held][:3]
        if len(unused) < 3:
            raise ValueError("the messages hold nearly all of the noncharacters U+FDD0 … U+FDEF; take some out.")
        return unused

    def _marked(self, value: Any, opening: str, closing: str) -> Any:
        """The same data, special tokens in its texts between marks, and a mark behind what could become one by what follows."""
        if isinstance(value, list):
            return [self._marked(item, opening, closing) for item in value]
        if isinstance(value, dict):
            return {key: self._marked(item, opening, closing) for key, item in value.items()}
        if not isinstance(value, str) or self._finder.pattern is None:
            return value
        kept = value.rstrip()
        begun = any(kept[-n:] in self._beginnings for n in range(1, 1 + min(len(kept), self._longest)))
        value = kept + closing + value[len(kept) :] if begun else value
        return self._finder.pattern.sub(lambda match: opening + match.group() + closing, value)

    def _stood_in(self, rendered: str, opening: str, closing: str, stand_in: str) -> str:
        """The text with a stand-in for each special token that is not between marks."""
        if self._finder.pattern is None:
            return rendered
        hidden = re.sub(f"{opening}[^{opening}{closing}]*{closing}", lambda match: opening * len(match.group()), rendered)
        parts, behind = [], 0
        for match in self._finder.pattern.finditer(hidden):
            token, (start, end) = self._finder.tokens[match.group()], match.span()
            if token.single_word and (is_word(hidden[start - 1 : start]) or is_word(hidden[end : end + 1])):
                continue
            parts += [rendered[behind:start], _stand_in(token, stand_in)]
            behind = end
        return "".join([*parts, rendered[behind:]])

    def _copy(self, stand_in: str) -> Tokenizer:
        """The tokenizer with stand-ins for the special tokens; other added tokens stay."""
        if stand_in not in self._copies:
            t = self.tokenizer
            changed = {"special": True, "single_word": False, "normalized": False}
            added = [
                token._replace(content=_stand_in(token, stand_in), **changed) if token.content in self._finder.tokens else token
                for token in t.added
            ]
            self._copies[stand_in] = Tokenizer(t.model, added, t.bos, t.eos, t.normalizer, t.template)
        return self._copies[stand_in]


def _stand_in(token: AddedToken, character: str) -> str:
    return f"{character}{token.id}{character}"


def _without(text: str, *marks: str) -> str:
    return text.translate({ord(mark): None for mark in marks})


def _texts(value: Any) -> Iterator[str]:
    """Every text in some data, keys of dicts excepted."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list | tuple):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _texts(item)
