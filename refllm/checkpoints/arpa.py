"""ARPA files: n-gram models as text, which SRILM, KenLM and many others read and write.

    \\data\\
    ngram 1=4                        how many n-grams of each order
    ngram 2=1

    \\1-grams:
    -0.6020600      the   -0.30103   log10 p, the words, and, for all orders but the highest, log10 of the back-off weight
    …
    \\end\\

(ARPA's format, as SRILM's ngram-format(5) describes it). -99 or less stands for the logarithm of 0. What `<s>` has for a
probability varies from program to program, for it is never predicted: here it is 0. A file without `<unk>` gets one of
probability 0.
"""

import gzip
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from refllm.atomic import replacing
from refllm.models.back_off import Table, number_of

UNK, BOS, EOS = "<unk>", "<s>", "</s>"
ZERO = -99.0  # log10 of 0
MOST_ORDERS = 32
LONGEST = 1 << 20  # bytes of a line
BLOCK = 1 << 16  # n-grams written at once


def read(path: str | Path) -> tuple[list[str], Table]:
    """The words of a file, in its order, and its model, of float64; plain or gzip.

    Raises OSError where it cannot be opened, ValueError where it is no ARPA file, names the line, and where counts do not agree.
    """
    path = Path(path)
    with open(path, "rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    try:
        with gzip.open(path) if packed else open(path, "rb") as file:
            return _Reader(path, file).model()  # type: ignore[arg-type]  # gzip's file reads as a binary one does
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{path} is a damaged gzip file ({error}).") from error


class _Reader:
    """A file, and how far it is read."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self.path, self.file, self.number = path, file, 0
        self.words: dict[str, int] = {}

    def wrong(self, what: str) -> ValueError:
        return ValueError(f"{self.path}, line {self.number}: {what}.")

    def lines(self) -> Iterator[bytes]:
        """The lines that are not empty, without the spaces around them."""
        while line := self.file.readline(LONGEST):
            self.number += 1
            if len(line) == LONGEST:
                raise self.wrong(f"a line has {LONGEST} bytes or more, which is no n-gram")
            if line := line.strip():
                yield line

    def next(self, needed: str) -> bytes:
        line = next(self.lines(), None)
        if line is None:
            raise self.wrong(f"the file ends before {needed}; it is cut, or no ARPA file")
        return line

    def model(self) -> tuple[list[str], Table]:
        for line in self.lines():  # words may stand before the header
            if line == b"\\data\\":
                break
        else:
            raise ValueError(f"{self.path} is no ARPA file: it has no line \\data\\.")
        told: list[int] = []
        line = self.next("\\1-grams:")
        while line.startswith(b"ngram "):
            told.append(self.count(line, len(told) + 1))
            line = self.next("\\1-grams:")
        if not told or told[0] == 0:
            raise self.wrong("\\data\\ tells of no word; an n-gram model needs some")
        table = Table(0, None, (), (), ())
        for n, count in enumerate(told, start=1):
            if line != b"\\%d-grams:" % n:
                raise self.wrong(f"{_shown(line)} stands where \\{n}-grams: is needed")
            table = self.section(table, n, count, n < len(told))
            line = self.next("\\end\\" if n == len(told) else f"\\{n + 1}-grams:")
        if line != b"\\end\\":
            raise self.wrong(f"{_shown(line)} stands where \\end\\ is needed")
        return list(self.words), table

    def count(self, line: bytes, n: int) -> int:
        order, _, count = line[6:].replace(b" ", b"").partition(b"=")
        if not (order.isdigit() and count.isdigit() and int(order[:9]) == n and len(count) < 16) or n > MOST_ORDERS:
            raise self.wrong(f"{_shown(line)} stands where ngram {n}=COUNT is needed")
        return int(count)

    def section(self, table: Table, n: int, count: int, weighted: bool) -> Table:
        """The table with the n-grams of one order more."""
        flat: list[int] = []
        scores, weights = [], []
        for i in range(count):
            line = self.next(f"n-gram {i + 1} of the {count} of order {n}")
            fields = line.split()
            if line.startswith(b"\\") and len(fields) == 1:
                raise self.wrong(f"order {n} has {i} n-grams, but \\data\\ tells of {count}")
            if len(fields) not in (n + 1, n + 2):
                raise self.wrong(f"{_shown(line)} needs log10 p, {n} words and perhaps a weight")
            scores.append(self.logarithm(fields[0]))
            weights.append(self.logarithm(fields[n + 1]) if len(fields) == n + 2 else 0.0)
            flat += [self.word(field, n) for field in fields[1 : n + 1]]
            if scores[-1] > 0 and n > 1:
                raise self.wrong(f"{_shown(line)} has log10 p above 0, which is no probability")
        score, weight = np.array(scores, np.float64), np.array(weights, np.float64)
        if n == 1:
            return self.first(score, weight, weighted)
        grams = np.array(flat, np.int64).reshape(count, n)
        history = number_of(table, grams[:, :-1])
        if np.any(history < 0):
            words = list(self.words)
            lost = " ".join(words[i] for i in grams[np.flatnonzero(history < 0)[0]])
            raise ValueError(f"{self.path}: the {n}-gram {lost!r} is there, but not the {n - 1}-gram that it begins with.")
        keys = history * table.vocab_size + grams[:, -1]
        sort = np.argsort(keys, kind="stable")
        keys = keys[sort]
        if np.any(keys[1:] == keys[:-1]):
            raise ValueError(f"{self.path}: some {n}-gram stands there twice.")
        longer = table._replace(keys=(*table.keys, keys), scores=(*table.scores, score[sort]))
        return longer._replace(weights=(*table.weights, weight[sort])) if weighted else longer

    def first(self, score: np.ndarray, weight: np.ndarray, weighted: bool) -> Table:
        """The table of order 1."""
        begin = self.words.get(BOS)
        if begin is not None:
            score[begin] = -np.inf
        if np.any(score > 0):
            word = list(self.words)[int(np.argmax(score))]
            raise ValueError(
                f"{self.path}: the word {word!r} has log10 p = {score.max():g}, which is above 0 and no probability."
            )
        if UNK not in self.words:
            self.words[UNK] = len(self.words)
            score, weight = np.append(score, -np.inf), np.append(weight, 0.0)
        return Table(score.size, begin, (np.arange(score.size),), (score,), (weight,) if weighted else ())

    def logarithm(self, field: bytes) -> float:
        try:
            value = float(field)
        except ValueError:
            value = np.nan
        if not value < np.inf or b"_" in field:
            raise self.wrong(f"{_shown(field)} stands where a logarithm is needed")
        return value if value > ZERO else -np.inf

    def word(self, field: bytes, n: int) -> int:
        try:
            word = field.decode()
        except UnicodeDecodeError:
            raise self.wrong(f"{_shown(field)} is not UTF-8") from None
        if n == 1:
            if word in self.words:
                raise self.wrong(f"the word {word!r} stands there twice")
            self.words[word] = len(self.words)
        elif word not in self.words:
            raise self.wrong(f"the word {word!r} is not among the 1-grams")
        return self.words[word]


def _shown(data: bytes) -> str:
    return repr(data[:40].decode("utf-8", "replace"))


def write(path: str | Path, words: Sequence[str], table: Table) -> None:
    """Write a model, whole or not at all; with gzip where the name ends in .gz. Numbers have all digits of their dtype.

    words: of each id
    Raises ValueError for a word that is empty, holds white space, or stands twice, and for a model of scores that no ARPA file
    can hold, because a history that is not kept weighs less than 1; OSError where the disk refuses.
    """
    from refllm.models.pruning import rows

    if table.absent != 0:
        raise ValueError("an ARPA file cannot hold stupid backoff: to it, a history that is not there weighs 1.")
    if len(words) != table.vocab_size:
        raise ValueError(f"there are {len(words)} words for {table.vocab_size} ids; an ARPA file needs one for each.")
    encoded = [word.encode() for word in words]
    bad = next((word for word, data in zip(words, encoded, strict=True) if data.split() != [data] or b"\0" in data), None)
    if bad is not None or len({*words}) < len(words):
        raise ValueError(f"the words of an ARPA file are unlike one another and without white space, unlike {bad or 'these'!r}.")
    with replacing(path) as file:
        text: BinaryIO = file
        if str(path).endswith(".gz"):
            text = gzip.GzipFile("", "wb", fileobj=file, mtime=0)  # type: ignore[assignment]  # it writes as a binary file does
        text.write(b"\\data\\\n" + b"".join(b"ngram %d=%d\n" % pair for pair in enumerate(table.sizes, start=1)))
        for n in range(1, table.order + 1):
            text.write(b"\n\\%d-grams:\n" % n)
            grams = rows(table, n)
            for start in range(0, len(grams), BLOCK):
                part = slice(start, start + BLOCK)
                columns = [_numbers(table.scores[n - 1][part]), [b" ".join(encoded[i] for i in g) for g in grams[part].tolist()]]
                if n < table.order:
                    columns.append(_numbers(table.weights[n - 1][part]))
                text.write(b"".join(b"\t".join(fields) + b"\n" for fields in zip(*columns, strict=True)))
        text.write(b"\n\\end\\\n")
        if text is not file:
            text.close()


def _numbers(x: np.ndarray) -> list[bytes]:
    """Each with the fewest digits that give it back."""
    return np.where(x > ZERO, x, np.asarray(ZERO, x.dtype)).astype("S").tolist()
