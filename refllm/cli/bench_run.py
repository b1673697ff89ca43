"""The sides that `refllm bench` compares, and a comparison from start to finish."""

import json
import os
import shlex
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

PEERS = {"torch": "torch eager", "transformers": "transformers"}  # libraries, and what their sides are called


def ours(kernels: str) -> list:
    """Our sides: kernels on, off, or both."""
    from refllm.array_api import load
    from refllm.bench.duel import Side

    if kernels not in ("on", "off", "both"):
        raise ValueError(f"--kernels {kernels!r} is neither on, off nor both.")
    name = load().name
    settings = ("on", "off") if kernels == "both" else (kernels,)
    return [Side(f"refllm {name}, kernels {k}", "refllm", {"REFLLM_KERNELS": k, "REFLLM_BACKEND": name}) for k in settings]


def peers(against: str | None, known: tuple[str, ...]) -> list:
    """The peers' sides, given their names by commas and those that do this work."""
    from refllm.bench.duel import Side

    sides = []
    for peer in [peer.strip() for peer in (against or "").split(",") if peer]:
        if peer not in known:
            raise ValueError(f"--against {peer!r} is not a peer that refllm knows; there is {' and '.join(known)}.")
        require(peer)
        sides.append(Side(PEERS[peer], peer))
    return sides


def require(peer: str) -> None:
    """Raise ImportError for a library that is not installed."""
    if find_spec(peer) is None:
        raise ImportError(f"refllm bench --against {peer} needs it, and it is not installed: pip install 'refllm[bench]'.")


def measure(
    sides: list,
    work: str,
    config: str,
    runs: int,
    threads: int | None,
    as_json: bool,
    save: bool,
    base: str | None = None,
    tell: Callable = lambda result: {},
) -> None:
    """Run the sides in turn, print what came out, and keep it if that is wanted.

    base: the side, by name, whose times the others are compared with    tell: what else to say of a result, figures by name
    """
    from rich.console import Console

    from refllm.bench import report
    from refllm.bench.duel import duel
    from refllm.cli.bench_table import show

    threads = threads or report.cores()
    errors = Console(stderr=True, highlight=False)
    with errors.status("starting") as status:
        results = duel(sides, work, config, runs, threads, lambda done: status.update(f"round {done} of {runs}"))
    for result in results:
        result.figures |= tell(result)
    found = report.record(results, next((r for r in results if r.side.name == base), None), command(), threads)
    if as_json:
        print(json.dumps(found))
    else:
        show(found, base)
    if save:
        keep(report.markdown(found))


def command() -> str:
    """What was typed, without what only says where the result goes, and without the folders of this machine."""
    typed = (a for a in sys.argv[1:] if a not in ("--save", "--json"))
    return shlex.join(["refllm", *(Path(a).name if Path(a).is_absolute() else a for a in typed)])


def keep(section: str) -> None:
    """Append a section to spec/results/timings.md."""
    from rich.console import Console

    from refllm.bench import report
    from refllm.conformance.specification import spec_folder

    path = spec_folder() / "results" / "timings.md"
    report.save(section, path)
    Console(stderr=True, highlight=False).print(f"appended to {os.path.relpath(path)}")
