"""How answers are judged, and how sure a share of right ones is.

F1 of words is that of SQuAD (Rajpurkar 2016, arXiv:1606.05250, section 6.1); the interval is Wilson's (1927, Journal of the
American Statistical Association 22, 209–212), which stays within 0 … 1 and is honest for few questions.
"""

import math
import re
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

Z = 1.959963984540054  # how many standard deviations hold 95 % of a normal distribution about its middle


class Share(NamedTuple):
    """A mean of numbers from 0 to 1, and the interval that holds the true one with 95 % confidence."""

    value: float
    low: float
    high: float
    n: int  # numbers that it is the mean of


def wilson(right: int, n: int) -> Share:
    """The share of right answers among n > 0, with Wilson's interval."""
    p, z2 = right / n, Z * Z / n
    middle, reach = p + z2 / 2, Z * math.sqrt(p * (1 - p) / n + z2 / (4 * n))
    low, high = ((middle + side * reach) / (1 + z2) for side in (-1, 1))
    return Share(p, 0.0 if right == 0 else low, 1.0 if right == n else high, n)  # there it is so exactly


def mean(scores: Sequence[float]) -> Share:
    """The mean of n > 0 scores from 0 to 1, with the normal interval of their scatter; Wilson's where all are 0 or 1."""
    n = len(scores)
    if set(scores) <= {0.0, 1.0}:
        return wilson(round(sum(scores)), n)
    middle = math.fsum(scores) / n
    scatter = math.sqrt(math.fsum((s - middle) ** 2 for s in scores) / (n - 1) / n) if n > 1 else 1.0
    return Share(middle, max(0.0, middle - Z * scatter), min(1.0, middle + Z * scatter), n)


def exact_match(answer: str, right: str) -> float:
    """1 where the answer is the right one but for white space around it, else 0."""
    return float(answer.strip() == right.strip())


def words(text: str) -> list[str]:
    """The words of a text in lower case, without punctuation."""
    return re.findall(r"\w+", text.lower())


def f1(answer: str, right: str) -> float:
    """The harmonic mean of precision and recall of the answer's words, each counted as often as it stands there."""
    ours, theirs = Counter(words(answer)), Counter(words(right))
    if not ours or not theirs:
        return float(ours == theirs)
    return 2 * sum((ours & theirs).values()) / (ours.total() + theirs.total())


METRICS = {"exact_match": exact_match, "f1": f1}  # of answers that are written; `accuracy` is of answers that are chosen
