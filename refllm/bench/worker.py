"""One side of a comparison, in a process of its own: `python -m refllm.bench.worker '{"library": …}'`.

It answers requests on stdin, one line of JSON each, on stdout. A process of its own gives each side its own threads and its own
peak of memory, and lets the caller drive the sides in turn.

    "first"  the first step, untimed: what both sides must agree on
    "run"    one timed run: seconds by name
    "memory" bytes: the peak since "first", and what was resident when the libraries had been imported
"""

import importlib.metadata
import json
import sys
from typing import Any

from refllm.array_api import load
from refllm.bench import decoding_sides, memory, training_sides
from refllm.bench.shapes import DECODING, TRAINING, Shape
from refllm.bench.side import Side


def prepare(library: str, work: str, shape: Shape, options: dict[str, Any]) -> Side:
    """The side that does this work in this library."""
    if work == "train":
        return training_sides.SIDES[library](shape, **options)
    return decoding_sides.prepare(library, shape, **options)


def described(library: str) -> dict[str, Any]:
    """What computes, by version."""
    if library != "refllm":
        import torch

        theirs = {name: importlib.metadata.version(name) for name in {library, "torch"}}
        return theirs | {"threads": torch.get_num_threads()}
    backend = load()
    found: dict[str, Any] = {backend.name: backend.version}
    if backend.name == "numpy":
        import threadpoolctl

        for blas in threadpoolctl.ThreadpoolController().select(user_api="blas").info():
            found |= {
                "blas": f"{blas['internal_api']} {blas['version']} ({blas.get('architecture', '?')})",
                "threads": blas["num_threads"],
            }
    return found


def main() -> None:
    """Serve one caller until it closes our stdin."""
    task = json.loads(sys.argv[1])
    if task["work"].startswith("tokenizer"):
        from refllm.bench import tokenizer_sides

        versions = {task["library"]: importlib.metadata.version(task["library"])}
        side = tokenizer_sides.prepare(task["library"], task["options"])
        imported = memory.resident()  # with the texts
        serve(side, versions, imported)
        return
    shape = (TRAINING if task["work"] == "train" else DECODING)[task["config"]]
    shape = shape._replace(config=type(shape.config)(**{**vars(shape.config), **task["model"]}))
    versions, imported = described(task["library"]), memory.resident()
    serve(prepare(task["library"], task["work"], shape, task["options"]), versions, imported)


def serve(side: Side, versions: dict[str, Any], imported: int) -> None:
    """Answer requests until there are no more."""
    for line in sys.stdin:
        request = line.strip()
        if request == "first":
            memory.forget_peak()
            reply = side.first()
        elif request == "run":
            reply = side.run()
        else:
            reply = {"peak": memory.peak(), "imported": imported, "versions": versions}
            reply["figures"] = side.figures()
        print(json.dumps(reply), flush=True)


if __name__ == "__main__":
    main()
