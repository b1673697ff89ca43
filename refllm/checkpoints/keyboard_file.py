"""A keyboard in one small file: safetensors, and inside for each order n

    n.words    (n-grams,) uint16, or uint32 beyond 65,536 words: the last word of each n-gram, for n > 1
    n.runs     ((n−1)-grams,) the fewest bytes that hold it: how many n-grams begin with each; the rest of a key
    n.scores   (n-grams,) uint8: which of the values below, or the values themselves as float32
    n.weights  (n-grams,) the same for the back-off weights, for all orders but the highest
    n.scores.values, n.weights.values   (at most 256,) float32, log10

beside `vocabulary` (UTF-8, a word a line) and `settings` (JSON).

The values are the means of what falls into 256 bins of equal width, so that no number moves by more than a 256th of their range.
(Bins of equally many numbers, as KenLM has them, move the rare ones most: the weights of the most frequent histories.)
The probabilities after a history then sum to one only nearly.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from refllm.checkpoints import json_file, tensor_file
from refllm.models.back_off import Table
from refllm.models.keyboard import BOS, Keyboard
from refllm.models.pruning import Sizes

FORMAT = "refllm keyboard 1"
ZERO = -99.0  # log10 of 0, as in ARPA files
HEADER = 4096  # bytes, more than the names and places of ten orders take
LEVELS = 256


def save(path: str | Path, keyboard: Keyboard, quantised: bool = True) -> None:
    """Write a keyboard, whole or not at all: 8 bits a number, or float32.

    Raises ValueError for a word with a line break in it, OSError where the disk refuses.
    """
    tensor_file.write(path, {name: tensor_file.of_array(a) for name, a in arrays(keyboard, quantised).items()})


def arrays(keyboard: Keyboard, quantised: bool) -> dict[str, np.ndarray]:
    """What the file holds, by name."""
    table = keyboard.table
    if any("\n" in word for word in keyboard.words):
        raise ValueError("a word of the vocabulary holds a line break; a keyboard's file has a word a line.")
    settings = {"format": FORMAT, "split": keyboard.split, "absent": table.absent}
    found = {
        "settings": np.frombuffer(json.dumps(settings).encode(), np.uint8),
        "vocabulary": np.frombuffer("\n".join(keyboard.words).encode("utf-8", "surrogatepass"), np.uint8),
    }
    for n in range(1, table.order + 1):
        if n > 1:
            history, word = np.divmod(table.keys[n - 1], table.vocab_size)
            runs = np.bincount(history, minlength=table.keys[n - 2].size)
            found[f"{n}.words"] = word.astype(_word_type(table.vocab_size))
            found[f"{n}.runs"] = runs.astype(np.min_scalar_type(int(runs.max(initial=0))))
        numbers = {"scores": table.scores[n - 1]} | ({"weights": table.weights[n - 1]} if n < table.order else {})
        for name, x in numbers.items():
            finite = np.maximum(x, ZERO).astype(np.float32)
            if quantised:
                found[f"{n}.{name}"], found[f"{n}.{name}.values"] = quantise(finite)
            else:
                found[f"{n}.{name}"] = finite
    return found


def _word_type(vocab_size: int) -> type:
    return np.uint16 if vocab_size <= 1 << 16 else np.uint32


def quantise(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Numbers (n,) as places (n,) uint8 in ascending values (at most 256,) float32: exact where there are no more than 256.

    −99, which is 0, stays what it is.
    """
    different = np.unique(x)
    if different.size <= LEVELS:
        return np.searchsorted(different, x).astype(np.uint8), different
    is_zero = x <= ZERO
    rest, n_bins = x[~is_zero].astype(np.float64), LEVELS - bool(is_zero.any())
    low, high = rest.min(), rest.max()
    bins = np.minimum(((rest - low) / (high - low) * n_bins).astype(np.int64), n_bins - 1)
    means = np.bincount(bins, rest, n_bins) / np.maximum(np.bincount(bins, minlength=n_bins), 1)
    rounded = x.copy()
    rounded[~is_zero] = means[bins]
    values, places = np.unique(rounded, return_inverse=True)
    return places.astype(np.uint8), values


def fits(words: tuple[str, ...], table: Table, n_bytes: int, quantised: bool = True) -> Callable[[Sizes], bool]:
    """Whether a pruned table of some sizes makes a file of at most so many bytes."""
    text = sum(len(word.encode("utf-8", "surrogatepass")) + 1 for word in words)
    number, values = (1, 4 * LEVELS) if quantised else (4, 0)
    word = np.dtype(_word_type(table.vocab_size)).itemsize
    run = [1]
    for keys, before in zip(table.keys[1:], table.keys, strict=False):
        longest = np.bincount(keys // table.vocab_size, minlength=before.size).max(initial=0)
        run.append(np.min_scalar_type(int(longest)).itemsize)

    def fit(sizes: Sizes) -> bool:
        total = HEADER + text
        for n, size in enumerate(sizes, start=1):
            total += size * number + values
            total += size * word + sizes[n - 2] * run[n - 1] if n > 1 else 0
            total += size * number + values if n < len(sizes) else 0
        return total <= n_bytes

    return fit


def load(path: str | Path) -> Keyboard:
    """Read a keyboard. Raises OSError where it cannot be opened, ValueError for one that `save` did not write."""
    tensors = {name: tensor.values() for name, tensor in tensor_file.read(path).items()}

    def stored(name: str, kinds: str) -> np.ndarray:
        x = tensors.get(name)
        if x is None or x.ndim != 1 or x.dtype.kind not in kinds:
            raise ValueError(f"{path} is no keyboard that refllm wrote: it has no {name}, or not as one is stored.")
        return x

    try:
        settings: Any = json_file.parse(stored("settings", "u").tobytes())
        words = stored("vocabulary", "u").tobytes().decode("utf-8", "surrogatepass").split("\n")
        if settings.get("format") != FORMAT or type(settings.get("absent")) not in (int, float):
            raise ValueError("its settings are not those of this format")
        table = _table(stored, len(words), words.index(BOS), float(settings["absent"]), tensors)
        return Keyboard(words, table, settings.get("split"))
    except (ValueError, AttributeError) as error:
        if str(path) in str(error):
            raise
        raise ValueError(f"{path} is no keyboard that refllm wrote, or damaged: {str(error).rstrip('.')}.") from error


def _table(
    stored: Callable[[str, str], np.ndarray], vocab_size: int, begin: int, absent: float, tensors: dict[str, np.ndarray]
) -> Table:
    def numbers(name: str, size: int) -> np.ndarray:
        x = stored(name, "uf")
        if x.dtype.kind == "u":
            values = stored(f"{name}.values", "f")
            if x.max(initial=0) >= max(values.size, 1) or (x.size and not values.size):
                raise ValueError(f"{name} points beyond its values")
            x = values[x]
        highest = 0 if "scores" in name else np.inf
        if x.size != size or not np.all(x < np.inf) or not np.all(x <= highest):
            raise ValueError(f"{name} does not hold {size} logarithms")
        return np.where(x <= ZERO, -np.inf, x)

    order = 1
    while f"{order + 1}.words" in tensors:
        order += 1
    keys, scores, weights = [np.arange(vocab_size)], [numbers("1.scores", vocab_size)], []
    for n in range(2, order + 1):
        weights.append(numbers(f"{n - 1}.weights", keys[-1].size))
        word, runs = stored(f"{n}.words", "u").astype(np.int64), stored(f"{n}.runs", "u").astype(np.int64)
        if runs.size != keys[-1].size or runs.max(initial=0) > vocab_size or runs.sum() != word.size:
            raise ValueError(f"{n}.runs does not tell which {n}-grams begin with what")
        key = np.repeat(np.arange(runs.size), runs) * vocab_size + word
        if word.max(initial=0) >= vocab_size or np.any(key[1:] <= key[:-1]):
            raise ValueError(f"{n}.words are not ascending words of the vocabulary")
        keys.append(key)
        scores.append(numbers(f"{n}.scores", key.size))
    return Table(vocab_size, begin, tuple(keys), tuple(scores), tuple(weights), absent)
