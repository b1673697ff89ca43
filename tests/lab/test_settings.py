"""Settings of experiments."""

from dataclasses import dataclass

import pytest

from refllm.lab.settings import require_whole_numbers


@dataclass(frozen=True)
class Settings:
    steps: int = 1
    widths: tuple[int, ...] = (2, 1)
    rate: float = 0.1
    text: str = ""


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"steps": 0}, r"steps=0 must be at least 1\."),
        ({"widths": ()}, r"widths=\(\) must be whole numbers of at least 1, one or more, and each of them once\."),
        ({"widths": (3, 0)}, r"widths=\(3, 0\) must be whole numbers of at least 1"),
        ({"widths": (3, 4, 3)}, r"widths=\(3, 4, 3\) must be whole numbers of at least 1"),
    ],
)
def test_whole_numbers_below_their_least_and_lists_without_one_are_refused(changed, message):
    with pytest.raises(ValueError, match=message):
        require_whole_numbers(Settings(**changed))


def test_another_least_value_can_be_named():
    require_whole_numbers(Settings(steps=0, widths=(0,)), steps=0, widths=0)
    with pytest.raises(ValueError, match="steps=1 must be at least 2"):
        require_whole_numbers(Settings(), steps=2)
    require_whole_numbers(Settings())
