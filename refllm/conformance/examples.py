"""The specification's examples: `call -> value` in a page, each true to its last printed digit."""

import ast
import math
from typing import Any

import numpy as np

from refllm.array_api.contract import PRIMITIVES, STANDARD

from .specification import MATHEMATICS, Example, definitions, plain


def run_example(example: Example) -> Any:
    """The value that an example's call has by the definitions."""
    code = compile("\n" * (example.line - 1) + example.call, f"spec/{example.page}.md", "eval")
    return eval(code, {"__builtins__": dict(MATHEMATICS) | dict(definitions())})


class _Arrays(ast.NodeTransformer):
    """Every list in an expression becomes a call of `array`; tuples stay."""

    def visit_List(self, node: ast.List) -> ast.AST:
        return ast.copy_location(ast.Call(ast.Name("array", ast.Load()), [node], []), node)


def run_array_example(example: Example, xp: Any) -> Any:
    """The value that an example of the array API has on a backend; its lists are arrays, and arrays come back as lists."""

    def array(items: list) -> Any:
        kind = np.asarray(items).dtype.kind
        return xp.asarray(items, dtype={"b": xp.bool, "i": xp.int32, "f": xp.float32}[kind])

    tree = ast.fix_missing_locations(_Arrays().visit(ast.parse(example.call, mode="eval")))
    names = {name: getattr(xp, name) for name in (*STANDARD, *PRIMITIVES)}
    value = eval(compile(tree, f"spec/{example.page}.md", "eval"), names | {"array": array})
    if hasattr(value, "dtype") and not isinstance(value, np.generic):
        value = xp.to_numpy(value)
    return plain(value)


def printed(text: str) -> Any:
    """The value that an example states, each decimal fraction with half a unit of its last printed digit: (value, slack)."""

    def read(node: ast.expr) -> Any:
        match node:
            case ast.List(elts=items) | ast.Tuple(elts=items):
                return [read(item) for item in items]
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                value, slack = read(operand)
                return -value, slack
            case ast.Constant(value=float() as value):
                digits = ast.get_source_segment(text, node) or ""
                mantissa, _, exponent = digits.lower().partition("e")
                return value, 0.5 * 10.0 ** (int(exponent or 0) - len(mantissa.partition(".")[2])) * (1 + 1e-9)
            case ast.Constant(value=value):
                return value, 0
            case ast.Name(id="inf"):
                return math.inf, 0
        raise ValueError(f"{text!r} is not a value of numbers, strings, truth values and lists.")

    return read(ast.parse(text, mode="eval").body)


def agrees(value: Any, stated: Any) -> bool:
    """Whether a value is what `printed` read: to the last printed digit, exactly where no digit was printed."""
    if isinstance(stated, list):
        if not isinstance(value, list | tuple) or len(value) != len(stated):
            return False
        return all(agrees(v, s) for v, s in zip(value, stated, strict=True))
    expected, slack = stated
    if slack == 0 or not isinstance(value, int | float):
        return value == expected
    return abs(value - expected) <= slack
