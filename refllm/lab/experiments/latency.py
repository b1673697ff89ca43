"""Prefill is parallel, decode is sequential: the time per token of each, and the bytes of the key/value cache.

A prompt is processed in one pass (prefill): every weight that is fetched from memory serves all of its tokens. Then each token
waits for the one before it (decode), and every weight is fetched again for it alone. The cache keeps the keys and values of all
positions that a later token attends to:

    bytes = 2 · layers · key/value heads · d_head · positions · bytes of a number

Times are of this machine with one BLAS thread, each the median of several tries, with the fastest and the slowest; beside them
stands the roofline, the least time by the machine's memory and arithmetic (`refllm.bench.floor`). A model whose weights fit the
processor's cache can be faster.
"""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from refllm.array_api import generator
from refllm.bench import floor
from refllm.decoding import decode, new_cache, prefill
from refllm.decoding.generate import check_continues
from refllm.decoding.sampling import greedy
from refllm.lab.experiment import Report, Result
from refllm.lab.running.pool import each
from refllm.lab.verdict import FAILS, HOLDS, UNDECIDABLE, Claim, Finding
from refllm.layers.kv_cache import n_bytes
from refllm.models import accounting, architecture
from refllm.models.model import Model

NAME = "latency"
SUMMARY = {
    "times": ("length", "read_ms", "read_floor_ms", "write_ms", "write_floor_ms"),
    "bytes": ("length", "cache_bytes", "windowed_bytes"),
}
BLOCK = 16  # positions of a block of the cache whose bytes are counted


@dataclass(frozen=True)
class Settings:
    """The defaults take a few seconds.

    checkpoint: the user's model, a folder or a file; "" for a Llama of random weights with the sizes below
    lengths: of the prompts, in tokens    written: tokens that are decoded after each    tries: of each measurement
    window: of sliding-window attention, in positions; a cache with it is counted beside the full one
    answer: tokens of an answer, for the share of its time that decoding takes
    """

    checkpoint: str = ""
    d_model: int = 256
    n_layers: int = 4
    vocab_size: int = 2048
    lengths: tuple[int, ...] = (1, 4, 16, 64, 256, 1024)
    written: int = 16
    tries: int = 5
    window: int = 128
    answer: int = 100
    seed: int = 0
    executor: str = "processes"

    def __post_init__(self) -> None:
        for name in ("written", "tries", "window", "answer"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1.")
        if min(self.lengths, default=0) < 1:
            raise ValueError(f"lengths={self.lengths} must be one or more prompts of at least 1 token.")


QUICK = Settings(lengths=(1, 8, 64, 512), tries=3, written=8)


class Times(NamedTuple):
    """Seconds per token, one number for each try."""

    read: list[float]  # prefill
    write: list[float]  # decode


def run(settings: Settings, folder: Path, workers: int, report: Report) -> Result:
    """Measure all times one after another, and count bytes."""
    ((_, found),) = each(measured, [("times", settings)], 1, folder / "times", settings.executor)
    for row in found["tables"]["times"]:
        report(f"{row['length']} tokens: {row['read_ms']:.3f} ms per token in prefill, {row['write_ms']:.2f} ms in decode")
    return found


def measured(s: Settings) -> Result:
    """Times and bytes at every length that the model's context holds. Raises ValueError where it holds none."""
    model = model_of(s)
    fitting = sorted({n for n in s.lengths if n + s.written <= model.config.max_positions})
    if not fitting:
        room = model.config.max_positions
        raise ValueError(f"a prompt of {min(s.lengths)} tokens and {s.written} more exceed the model's context of {room}.")
    times = {n: Times([], []) for n in fitting}
    for _ in range(1 + s.tries):  # the lengths in turn, so that other load on the machine affects all alike
        for n in fitting:
            read, write = timed(model, prompt(model, n, s.seed), s.written, time.perf_counter)
            times[n].read.append(read)
            times[n].write.append(write)
    rows = [row(model, n, Times(*(tries[1:] for tries in times[n])), s.written) for n in fitting]  # the first try warms up
    last = rows[-1]
    waiting = last["write_ms"] * s.answer
    numbers = {"decoding_share": waiting / (waiting + last["read_ms"] * last["length"]), "answer": s.answer}
    return {"tables": {"times": rows, "bytes": [bytes_row(model, n, s.window) for n in fitting]}, "numbers": numbers}


def model_of(s: Settings) -> Model:
    """The user's model, or one of random weights, on which times do not depend."""
    if s.checkpoint:
        from refllm.checkpoints import load

        model = load(s.checkpoint)
        check_continues(model)
        return model
    heads, room = max(1, s.d_model // 64), max(s.lengths) + s.written
    config = architecture("llama").Config(
        vocab_size=s.vocab_size,
        d_model=s.d_model,
        n_layers=s.n_layers,
        n_heads=heads,
        n_kv_heads=heads,
        d_head=s.d_model // heads,
        d_ff=round(8 * s.d_model / 3 / 4) * 4,
        max_positions=room,
        tied=True,
    )
    return Model.initialise("llama", config, s.seed)


def prompt(model: Model, length: int, seed: int) -> np.ndarray:
    """Uniformly random tokens: (1, length) int32."""
    return generator(seed, "prompt").integers(0, model.config.vocab_size, (1, length)).astype(np.int32)


def timed(model: Model, tokens: np.ndarray, written: int, now: Callable[[], float]) -> tuple[float, float]:
    """Seconds per token of prefill for a prompt (1, T), and of decoding so many tokens after it, each of which the host reads."""
    xp, (_, T) = model.backend.xp, tokens.shape
    ids, cache = model.tokens(tokens), new_cache(model, 1, T + written)
    began = now()
    logits, cache = prefill(model, ids, cache)
    xp.to_numpy(logits)
    read = now()
    for _ in range(written):
        token = greedy(logits)
        xp.to_numpy(token)
        logits, cache = decode(model, token[:, None], cache)
    xp.to_numpy(logits)
    return (read - began) / T, (now() - read) / written


def row(model: Model, length: int, times: Times, written: int) -> dict[str, Any]:
    """Milliseconds per token at one length: median, fastest, slowest, and the roofline's."""
    found: dict[str, Any] = {"length": length}
    for name, tries in times._asdict().items():
        found |= {f"{name}_ms": 1e3 * statistics.median(tries), f"{name}_low_ms": 1e3 * min(tries)}
        found[f"{name}_high_ms"] = 1e3 * max(tries)
    found["read_floor_ms"] = 1e3 * floor.prefill_floor(model, length).seconds / length
    found["write_floor_ms"] = 1e3 * floor.token_floor(model, length + (written + 1) // 2).seconds
    return found


def bytes_row(model: Model, length: int, window: int) -> dict[str, Any]:
    """Bytes of the cache of so many positions and those of the formula; also with a sliding window, if the architecture has one.
    The cache is made of whole blocks, so it may take up to two blocks a layer more (`slack_bytes`).
    """
    found = {"length": length} | dict(zip(("cache_bytes", "cache_formula_bytes"), cache_bytes(model, length), strict=True))
    if hasattr(model.config, "window"):
        windowed = Model(model.architecture, replace(model.config, window=window), model.params)
        found |= zip(("windowed_bytes", "windowed_formula_bytes"), cache_bytes(windowed, length), strict=True)
    return found | {"slack_bytes": 2 * BLOCK * model.config.n_layers * floor.layer_bytes(model)}


def cache_bytes(model: Model, length: int) -> tuple[int, int]:
    """Bytes of a cache of so many positions, and those of the formula for the positions that the last query attends."""
    formula = accounting.seen_cache_bytes(model.architecture, model.config, length, floor.dtype_name(model))
    return n_bytes(new_cache(model, 1, length, size=BLOCK)), formula


def figures(result: Result) -> dict[str, Any]:
    """Time per token and bytes of the cache against length."""
    from refllm.lab import plots

    figure, (times, sizes) = plots.new_figure("length (tokens)", "time per token (ms)", panels=2)
    rows = result["tables"]["times"]
    n = [row["length"] for row in rows]
    for i, (name, label) in enumerate((("write", "decode"), ("read", "prefill"))):
        color = plots.COLORS[i]
        low, high = ([row[f"{name}_{end}_ms"] for row in rows] for end in ("low", "high"))
        times.fill_between(n, low, high, color=color, alpha=0.15, linewidth=0)
        times.plot(n, [row[f"{name}_ms"] for row in rows], marker=plots.MARKERS[i], markersize=4, color=color, label=label)
        least = {"linestyle": "--", "linewidth": 1, "marker": plots.MARKERS[i], "markersize": 3, "color": color}
        times.plot(n, [row[f"{name}_floor_ms"] for row in rows], label=f"{label}, by the roofline", **least)
    kept = result["tables"]["bytes"]
    for i, (name, label) in enumerate((("cache_bytes", "full attention"), ("windowed_bytes", "sliding window"))):
        if name in kept[0]:
            mebibytes = [row[name] / 2**20 for row in kept]
            sizes.plot(n, mebibytes, marker=plots.MARKERS[2 + i], markersize=4, color=plots.COLORS[2 + i], label=label)
    sizes.set_ylabel("keys and values (MiB)", color=plots.INK)
    for axes in (times, sizes):
        plots.logarithmic(axes)
        plots.legend(axes)
    return {"latency": figure}


def judge_latency(results: Mapping[str, Any]) -> Finding:
    """Claim 18, at the longest prompt. It holds where the fastest try of decode takes longer for a token than the slowest of
    prefill. It fails where the slowest of decode takes less than the fastest of prefill, or where, at any length, a cache takes
    less than the formula or more than two blocks a layer above it. Otherwise it is undecidable.
    """
    tables = results[NAME]["tables"]
    first, last = tables["times"][0], tables["times"][-1]
    kinds = [kind for kind in ("cache", "windowed") if f"{kind}_bytes" in tables["bytes"][0]]
    above = [
        (row[f"{kind}_bytes"] - row[f"{kind}_formula_bytes"], row["slack_bytes"]) for row in tables["bytes"] for kind in kinds
    ]
    off = any(not 0 <= more <= slack for more, slack in above)
    low, high = last["write_low_ms"] / last["read_high_ms"], last["write_high_ms"] / last["read_low_ms"]
    verdict = FAILS if off or high < 1 else HOLDS if low > 1 else UNDECIDABLE
    numbers, kept = results[NAME]["numbers"], tables["bytes"][-1]
    share, position = numbers["decoding_share"], kept["cache_bytes"] // kept["length"]
    why = (
        f"After a prompt of {last['length']} tokens prefill takes {last['read_ms']:.3f} ms per token (of {first['length']}: "
        f"{first['read_ms']:.2f} ms) and decode {last['write_ms']:.2f} ms, {100 * share:.0f} % of the time to "
        f"{numbers['answer']} tokens of answer; the cache takes {position:,} bytes a position"
        + (f", {kept['windowed_bytes']:,} in all with a sliding window." if "windowed" in kinds else ".")
    )
    return Finding(last["write_ms"] / last["read_ms"], low, high, "decode over prefill, time per token", verdict, why)


CLAIMS = (
    Claim(
        number=18,
        statement="Prefill is parallel, decode is sequential and sets the latency; keys and values grow with the sequence.",
        formula="time per token, decode / prefill > 1 at the longest prompt; bytes = 2 · layers · G · K · positions · itemsize",
        published="",
        needs=(NAME,),
        judge=judge_latency,
    ),
)
