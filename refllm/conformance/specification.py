"""The specification as a program: its pages are taken apart and their definitions executed.

A page of `spec/` is Markdown with blocks that run: ```` ```python definition ```` holds scalar Python, ```` ```example ```` holds
lines `call -> value`, ```` ```array example ```` the same for the array API. A table headed `Law` names the laws, and links
to `.json` files name its vectors.
All definitions share one namespace, so that a model's page calls the layers' pages by name.
The same definition run on complex numbers gives the gradient (complex step: Squire & Trapp 1998, SIAM Review 40(1)).
"""

import ast
import cmath
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

STEP = 1e-30  # of the complex step: its square vanishes beside 1, so the derivative is exact to rounding


def spec_folder() -> Path:
    """Where the pages lie: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).parents[1]
    for folder in (package / "spec", package.parent / "spec"):
        if (folder / "accuracy.md").is_file():
            return folder
    raise FileNotFoundError(f"the specification is neither in {package / 'spec'} nor in {package.parent / 'spec'}.")


class Block(NamedTuple):
    line: int  # of its first line of code, counted from 1
    code: str


class Example(NamedTuple):
    page: str
    line: int
    call: str
    value: str


class Law(NamedTuple):
    name: str  # the law holds if test_<name> passes
    statement: str


@dataclass(frozen=True)
class Page:
    """One page, taken apart.

    name: its path below spec/ without the suffix, such as "layers/rms_norm"    facts: the table that heads the page
    """

    name: str
    title: str
    facts: Mapping[str, str]
    definitions: tuple[Block, ...]
    examples: tuple[Example, ...]  # of the definitions
    array_examples: tuple[Example, ...]  # of the array API
    laws: tuple[Law, ...]
    vectors: tuple[Path, ...]


FENCE = re.compile(r"^```(?P<kind>[\w ]*)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([\w./-]+\.json)\)")


def tables(text: str) -> list[list[list[str]]]:
    """The Markdown tables of a text, each a list of rows of cells, the header first."""
    found: list[list[list[str]]] = []
    inside = False
    for line in text.splitlines():
        if not line.startswith("|"):
            inside = False
            continue
        if not inside:
            found.append([])
            inside = True
        cells = [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if not all(re.fullmatch(r":?-+:?", cell) for cell in cells):
            found[-1].append(cells)
    return found


def parse(path: Path, folder: Path) -> Page:
    """Take one page apart."""
    text = path.read_text(encoding="utf-8")
    name = path.relative_to(folder).with_suffix("").as_posix()
    definitions = []
    examples: dict[str, list[Example]] = {"example": [], "array example": []}
    for fence in FENCE.finditer(text):
        line = text.count("\n", 0, fence.start("code")) + 1
        if fence["kind"] == "python definition":
            definitions.append(Block(line, fence["code"]))
        elif fence["kind"] in examples:
            for offset, row in enumerate(fence["code"].splitlines()):
                call, arrow, value = row.rpartition(" -> ")
                if row.strip() and not arrow:
                    raise ValueError(f"{path.name}:{line + offset} has no ' -> ': {row!r}; an example reads 'call -> value'.")
                if row.strip():
                    examples[fence["kind"]].append(Example(name, line + offset, call.strip(), value.strip()))
    prose = FENCE.sub("", text)
    grids = tables(prose)
    return Page(
        name=name,
        title=text.partition("\n")[0].removeprefix("# "),
        facts={row[0]: row[1] for grid in grids if grid[0] == ["", ""] for row in grid[1:]},
        definitions=tuple(definitions),
        examples=tuple(examples["example"]),
        array_examples=tuple(examples["array example"]),
        laws=tuple(Law(row[0].strip("`"), row[1]) for grid in grids if grid[0][0] == "Law" for row in grid[1:]),
        vectors=tuple(path.parent / link for link in dict.fromkeys(LINK.findall(prose))),
    )


def entries(page: str, heading: str = "Name") -> dict[str, str]:
    """The rows of a page's tables that begin with a heading: first cell to second, without back-ticks."""
    text = FENCE.sub("", (spec_folder() / f"{page}.md").read_text(encoding="utf-8"))
    return {row[0].strip("`"): row[1] for grid in tables(text) if grid[0][0] == heading for row in grid[1:]}


@cache
def pages() -> Mapping[str, Page]:
    """Every page by name, in alphabetical order; results/ holds measurements, no pages."""
    folder = spec_folder()
    paths = sorted(path for path in folder.rglob("*.md") if path.parent != folder / "results")
    return {page.name: page for page in (parse(path, folder) for path in paths)}


# The scalar mathematics that definitions may use. Everything works on complex numbers too.


def _either(real: Callable, complex_: Callable) -> Callable:
    return lambda z: complex_(z) if isinstance(z, complex) else real(z)


def _part(z: Any) -> float:
    return z.real if isinstance(z, complex) else z


def _largest(*values: Any) -> Any:
    """The largest by real part, the first of equals."""
    items = values[0] if len(values) == 1 else values
    return max(items, key=_part)


def _erf(z: Any) -> Any:
    """erf(a + ib) = erf(a) + 2/√π · exp(−a²) · ib for tiny b, which is all that the complex step needs."""
    if isinstance(z, complex):
        return complex(math.erf(z.real), 2 / math.sqrt(math.pi) * math.exp(-z.real * z.real) * z.imag)
    return math.erf(z)


MATHEMATICS = {
    "pi": math.pi,
    "inf": math.inf,
    "sqrt": _either(math.sqrt, cmath.sqrt),
    "exp": _either(math.exp, cmath.exp),
    "log": _either(math.log, cmath.log),
    "tanh": _either(math.tanh, cmath.tanh),
    "sin": _either(math.sin, cmath.sin),
    "cos": _either(math.cos, cmath.cos),
    "erf": _erf,
    "floor": math.floor,
    "ceil": math.ceil,
    "max": _largest,
    "min": min,
    "sum": sum,
    "abs": abs,
    "len": len,
    "range": range,
    "zip": zip,
    "enumerate": enumerate,
    "reversed": reversed,
    "sorted": sorted,
    "list": list,
    "dict": dict,
    "all": all,
    "any": any,
    "None": None,
    "True": True,
    "False": False,
    "record": SimpleNamespace,  # a bundle of named values: record(start=0, causal=True)
}


@cache
def definitions() -> Mapping[str, Any]:
    """Every name that the pages define, executed in one namespace that holds nothing but scalar mathematics.

    Raises ValueError when two pages define the same name.
    """
    namespace: dict[str, Any] = {"__builtins__": dict(MATHEMATICS)}
    owner: dict[str, str] = {}
    for page in pages().values():
        for block in page.definitions:
            # empty lines in front make a traceback name the line of the page
            exec(compile("\n" * (block.line - 1) + block.code, f"spec/{page.name}.md", "exec"), namespace)
            for statement in ast.parse(block.code).body:
                if not isinstance(statement, ast.FunctionDef):
                    raise ValueError(f"spec/{page.name}.md: a definition block holds functions only.")
                if statement.name in owner:
                    raise ValueError(f"{statement.name} is defined in spec/{owner[statement.name]}.md and spec/{page.name}.md.")
                owner[statement.name] = page.name
    return {name: namespace[name] for name in owner}


SIGNATURE = re.compile(r"^def (\w+)\([^)]*\):  # (.*) -> \(.*\)$", re.MULTILINE)
AXES = re.compile(r"\(([^)]*)\)|\*")


@cache
def signatures() -> Mapping[str, tuple[tuple[str, ...] | None, ...]]:
    """The axes of each argument of a definition that states them, None for one that is passed whole.

    `def mlp(x, up, activation):  # (D), (D, F), * -> (F)` has the signature (("D",), ("D", "F"), None).
    """

    def axes(text: str) -> tuple:
        return tuple(
            None if m[0] == "*" else tuple(letter.strip() for letter in m[1].split(",") if letter.strip())
            for m in AXES.finditer(text)
        )

    return {m[1]: axes(m[2]) for page in pages().values() for block in page.definitions for m in SIGNATURE.finditer(block.code)}


def plain(value: Any) -> Any:
    """Arrays as nested lists of Python numbers, whatever holds them."""
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, Mapping):
        return {key: plain(v) for key, v in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(plain(v) for v in value))
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    return value


def evaluate(name: str, *arguments: Any) -> np.ndarray:
    """A definition applied at every leading position of its arguments; complex where an argument is.

    arguments: NumPy arrays with any leading axes, which broadcast, before those of the definition's signature
    """
    axes, definition = signatures()[name], definitions()[name]
    inner = [0 if letters is None else len(letters) for letters in axes]
    arrays = [a if letters is None else np.asarray(a) for a, letters in zip(arguments, axes, strict=True)]
    leads = [() if letters is None else a.shape[: a.ndim - n] for a, letters, n in zip(arrays, axes, inner, strict=True)]
    lead = np.broadcast_shapes(*leads)
    spread = [
        a if letters is None else np.broadcast_to(a, lead + a.shape[a.ndim - n :])
        for a, letters, n in zip(arrays, axes, inner, strict=True)
    ]
    results = [
        definition(*(plain(a if letters is None else a[index]) for a, letters in zip(spread, axes, strict=True)))
        for index in np.ndindex(lead)
    ]
    stacked = np.array(results)
    return stacked.reshape(lead + stacked.shape[1:])


def gradients(f: Callable, arguments: tuple, upstream: Any, of: tuple[int, ...]) -> list:
    """∂ Σ(upstream · f(arguments)) / ∂ some of the arguments, by the complex step.

    f: returns one array and computes on complex numbers    upstream: an array of that shape
    of: which arguments, counted from 0; floating arrays
    """
    found = []
    for i in of:
        gradient = np.zeros(arguments[i].shape)
        for index in np.ndindex(gradient.shape):
            moved = arguments[i].astype(complex)
            moved[index] += STEP * 1j
            y = np.asarray(f(*arguments[:i], moved, *arguments[i + 1 :]))
            gradient[index] = np.sum(upstream * y.imag) / STEP
        found.append(gradient)
    return found
