"""The house stands as DESIGN draws it: imports go down, each name has its places, and nothing else lies about."""

import ast
import fnmatch
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

FLOORS = {
    "array_api": 0,
    "backends": 0,
    "layers": 1,
    "tokenizer": 1,
    "models": 2,
    "checkpoints": 3,
    "training": 3,
    "decoding": 3,
    "evaluation": 3,
    "lab": 4,
    "conformance": 4,
    "bench": 4,
    "cli": 5,
}

LABORATORY = {"fits": 0, "reliability": 0, "running": 0, "materials": 1, "experiments": 2}  # its own floors

# Above backends/, `import numpy` stands only where host data comes in or goes out, and where NumPy itself is the subject.
NUMPY_DOORS = {
    "array_api/random.py": "random numbers come from the host",
    "bench/": "feeds two libraries the same host data",
    "checkpoints/": "tensors come from files and go to files",
    "cli/version.py": "prints NumPy's version",
    "cli/watch.py": "reads a held-out text for the trigram",
    "conformance/": "the oracle is float64 NumPy",
    "decoding/choose.py": "uniforms and the masks of constraints come from the host",
    "decoding/beam_search.py": "beams are chosen on the host",
    "decoding/constrained.py": "masks come from a library on the host",
    "decoding/drafts.py": "texts come in; draws the uniforms on the host",
    "decoding/generate.py": "prompts come in and tokens go out",
    "decoding/intervals.py": "judges one step's logits on the host, in float64",
    "decoding/margin.py": "judges one step's logits on the host, in float64",
    "decoding/request.py": "prompts come in, and masks of constraints",
    "decoding/sampling.py": "draws the uniforms on the host",
    "decoding/speculative.py": "tokens come and go; draws the uniforms on the host",
    "evaluation/": "scores leave as NumPy arrays; their statistics live on the host",
    "lab/": "statistics of results",
    "models/back_off.py": "n-grams lie in sorted arrays on the host",
    "models/keyboard.py": "words and their n-grams live on the host",
    "models/model.py": "tokens come in as NumPy arrays or lists",
    "models/ngram.py": "counts words on the host; it has no gradient",
    "models/pruning.py": "chooses among n-grams on the host",
    "models/stupid_backoff.py": "counts words on the host; it has no gradient",
    "models/parameters.py": "initial weights are drawn on the host",
    "tokenizer/": "tables, text and ids live on the host",
    "training/data.py": "the memory-mapped tokens",
    "training/masking.py": "tokens are hidden by draws of the host",
}

# Libraries whose names stand only in backends/, or in a file that is about them.
ARRAY_LIBRARIES = ("mlx", "cupy", "cupyx", "torch", "jax", "array_api_strict", "array_api_compat")
LIBRARY_DOORS = {
    (f"bench/{name}.py", "torch") for name in ("decoding_sides", "torch_peer", "training_sides", "transformers_peer", "worker")
}

ARCHITECTURES = ("gpt2", "llama", "mixtral", "gemma", "bert", "ngram")  # the models that training and decoding never import
TOP_LEVEL = {"pyproject.toml", "refllm", "backends", "tests", "spec", "README.md", "LICENSE", "CHANGELOG.md"}


def modules(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


SOURCES = [*modules("refllm"), *modules("backends")]


def name_of(path: Path) -> str:
    """A source file's module name."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    parts = ("refllm", *parts) if parts[0] == "backends" else parts
    return ".".join(parts).removesuffix(".__init__")


@cache
def imports(path: Path) -> frozenset[str]:
    """Every module that a file imports, in functions too, by its full name; `from a import b` gives a and a.b."""
    package = name_of(path).split(".") if path.name == "__init__.py" else name_of(path).split(".")[:-1]
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(a.name for a in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(part for part in (above, node.module) if part)
            found.add(module)
            found.update(f"{module}.{a.name}" for a in node.names)
    return frozenset(found)


def room(module: str) -> str | None:
    """The room of the house that a module stands in: "layers" for refllm.layers.linear."""
    parts = module.split(".")
    return parts[1] if parts[0] == "refllm" and len(parts) > 1 and parts[1] in FLOORS else None


def in_house(path: Path) -> str:
    """A file's place below refllm/."""
    return path.relative_to(ROOT / "refllm").as_posix()


def sources(*rooms: str) -> list[Path]:
    return [p for p in SOURCES if room(name_of(p)) in rooms]


def test_every_room_has_its_floor():
    rooms = {p.name for p in (ROOT / "refllm").iterdir() if (p / "__init__.py").is_file()}
    assert rooms <= FLOORS.keys()


@pytest.mark.parametrize("name", sorted(FLOORS))
def test_imports_only_go_down(name):
    upward = [
        f"{path.relative_to(ROOT)} imports {module}"
        for path in sources(name)
        for module in sorted(imports(path))
        if room(module) and FLOORS[room(module)] > FLOORS[name]
    ]
    assert not upward


@pytest.mark.parametrize("name", sorted(LABORATORY))
def test_imports_only_go_down_in_the_laboratory(name):
    allowed = {other for other, floor in LABORATORY.items() if floor < LABORATORY[name]} | {name}
    wrong = [
        f"{path.relative_to(ROOT)} imports {module}"
        for path in sources("lab")
        for module in sorted(imports(path))
        if in_laboratory(name_of(path)) == name and in_laboratory(module) not in (*allowed, None)
    ]
    assert not wrong


def in_laboratory(module: str) -> str | None:
    """The part of the laboratory that a module stands in: "fits" for refllm.lab.fits.laws."""
    parts = module.split(".")
    return parts[2] if parts[:2] == ["refllm", "lab"] and len(parts) > 2 and parts[2] in LABORATORY else None


def test_layers_and_tokenizer_are_separate_rooms():
    assert not [p for p in sources("layers") if "tokenizer" in {room(m) for m in imports(p)}]
    assert not [p for p in sources("tokenizer") if "layers" in {room(m) for m in imports(p)}]


def test_training_and_decoding_never_import_a_model():
    models = {f"refllm.models.{name}" for name in ARCHITECTURES}
    assert not [f"{in_house(p)} imports {m}" for p in sources("training", "decoding", "evaluation") for m in imports(p) & models]


def test_the_package_itself_imports_nothing_above_the_ground_floor_at_once():
    module = ast.parse((ROOT / "refllm" / "__init__.py").read_text(encoding="utf-8"))
    at_once = [n for n in module.body if isinstance(n, ast.ImportFrom)]
    assert {n.module for n in at_once if n.level} == {"array_api"}


def test_numpy_stands_only_at_the_doors():
    used = dict.fromkeys(NUMPY_DOORS, False)
    strangers = []
    for path in modules("refllm"):
        if any(m.partition(".")[0] == "numpy" for m in imports(path)):
            doors = [d for d in NUMPY_DOORS if in_house(path) == d or (d.endswith("/") and in_house(path).startswith(d))]
            strangers += [] if doors else [in_house(path)]
            used |= dict.fromkeys(doors, True)
    assert not strangers, "give the reason in NUMPY_DOORS, or do without NumPy"
    assert not [d for d, is_used in used.items() if not is_used and (ROOT / "refllm" / d).exists()], "doors nobody uses"


def test_no_other_array_library_is_named_above_the_backends():
    named = {
        (in_house(path), library)
        for path in modules("refllm")
        for library in ARRAY_LIBRARIES
        if library in {m.partition(".")[0] for m in imports(path)}
    }
    assert named <= LIBRARY_DOORS


def test_import_refllm_loads_no_library_but_numpy():
    code = "import sys; before = {*sys.modules}; import refllm; print(*{m.partition('.')[0] for m in {*sys.modules} - before})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    third_party = {m for m in done.stdout.split() if m not in sys.stdlib_module_names and not m.startswith("_")}
    assert third_party <= {"refllm", "numpy", "cython_runtime"}  # the last comes with NumPy


def test_the_packages_of_pyproject_are_those_of_the_tree():
    tools = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    tree = {name_of(p) for p in SOURCES if p.name == "__init__.py"}
    data = {"refllm.spec"}  # a package of data only, which needs no __init__.py
    assert sorted(tools["packages"]) == sorted(tree | data)
    for package, folder in tools["package-dir"].items():
        assert (ROOT / folder).is_dir(), package


def test_the_top_level_holds_what_it_must_and_nothing_else():
    ignored = [line.strip("/") for line in (ROOT / ".gitignore").read_text(encoding="utf-8").split()]
    found = {p.name for p in ROOT.iterdir() if not p.name.startswith(".")}
    assert {n for n in found if not any(fnmatch.fnmatch(n, pattern) for pattern in ignored)} == TOP_LEVEL


def ops(path: Path) -> list[str]:
    """The functions of a file that @op marks."""
    functions = [n for n in ast.parse(path.read_text(encoding="utf-8")).body if isinstance(n, ast.FunctionDef)]
    return [f.name for f in functions if any(isinstance(d, ast.Name) and d.id == "op" for d in f.decorator_list)]


@pytest.mark.parametrize("path", [p for p in sources("layers") if ops(p)], ids=lambda p: p.stem)
def test_a_layer_has_one_name_in_code_tests_and_spec(path):
    for place in (f"tests/layers/test_{path.stem}.py", f"spec/layers/{path.stem}.md", f"spec/layers/{path.stem}.json"):
        assert (ROOT / place).is_file(), place


@pytest.mark.parametrize("path", sources("models"), ids=lambda p: p.stem)
def test_an_architecture_has_one_name_in_code_tests_and_spec(path):
    if path.stem in ARCHITECTURES:
        for place in (f"tests/models/test_{path.stem}.py", f"spec/models/{path.stem}.md"):
            assert (ROOT / place).is_file(), place


@pytest.mark.parametrize("room", ["layers", "models"])
def test_a_page_of_the_specification_is_about_code_of_its_name(room):
    pages = {p.stem for p in (ROOT / "spec" / room).glob("*.md")}
    assert pages
    assert pages <= {p.stem for p in sources(room)}


@pytest.mark.parametrize("path", sources("layers"), ids=lambda p: p.stem)
def test_a_backward_stands_below_its_forward(path):
    order = ops(path)
    for name in order:
        if name.endswith("_backward"):
            assert order.index(name) == order.index(name.removesuffix("_backward")) + 1, name


def test_test_folders_are_no_packages():
    assert not list((ROOT / "tests").rglob("__init__.py"))


@pytest.mark.parametrize("folder", ["refllm", "backends", "tests"])
def test_every_module_says_what_it_is(folder):
    silent = [p.relative_to(ROOT) for p in modules(folder) if not ast.get_docstring(ast.parse(p.read_text(encoding="utf-8")))]
    assert not silent


def test_nothing_is_left_for_later():
    words = ("TO" + "DO", "FIX" + "ME", "XX" + "X", "NotImplemented" + "Error")
    found = [
        f"{p.relative_to(ROOT)}: {word}"
        for p in (*SOURCES, *modules("tests"), *modules("spec"))
        for word in words
        if word in p.read_text(encoding="utf-8")
    ]
    assert not found
