"""Jinja's sandbox, with what Hugging Face transformers gives chat templates in it. The one file that imports jinja2."""

import json
from typing import Any

import jinja2
from jinja2 import TemplateError, TemplateSyntaxError
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.nodes import CallBlock, Node
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace as JinjasNamespace

__all__ = ["ENVIRONMENT", "TemplateError", "TemplateSyntaxError"]

OLDEST = (3, 1, 6)  # programs could break out of the sandboxes before it

if tuple(int(part) for part in jinja2.__version__.split(".")[:3] if part.isdecimal()) < OLDEST:
    raise ImportError(f"jinja2 {jinja2.__version__} is too old.")


class Generation(Extension):
    """The tag around what the model itself is to write; it changes no text."""

    tags = {"generation"}

    def parse(self, parser: Parser) -> Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return CallBlock(self.call_method("written"), [], [], body).set_lineno(line)

    def written(self, caller: Any) -> str:
        return caller()


class Namespace(JinjasNamespace):
    """Jinja's, without names that begin with an underscore: through those a program reaches Python's insides."""

    def __init__(*arguments: Any, **names: Any):  # not `self`, which may be one of the names
        self, *pairs = arguments
        JinjasNamespace.__init__(self)
        for name, value in dict(*pairs, **names).items():
            self[name] = value

    def __setitem__(self, name: str, value: Any) -> None:
        if str(name).startswith("_"):
            raise SecurityError(f"a namespace cannot hold {name!r}")
        super().__setitem__(name, value)


class Dict:
    """Python's dict as a template may use it: called, and not looked into."""

    def __call__(self, *pairs: Any, **names: Any) -> dict[Any, Any]:
        return dict(*pairs, **names)

    def fromkeys(self, *keys: Any) -> dict[Any, Any]:
        return dict.fromkeys(*keys)


def raise_exception(message: str) -> None:
    """Refuse the conversation."""
    raise TemplateError(message)


def tojson(value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False) -> str:
    """JSON as Python writes it; Jinja's own filter writes HTML's signs another way."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


ENVIRONMENT = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols])
ENVIRONMENT.filters["tojson"] = tojson
ENVIRONMENT.globals |= {"raise_exception": raise_exception, "namespace": Namespace, "dict": Dict()}
