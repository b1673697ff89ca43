"""The loss curve is drawn whatever a run has measured so far, and smoothing invents nothing."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.cli.plot import Level, draw, running_mean

LEVEL = Level("Kneser-Ney trigram", 3.7, 1.9)


def lines(n, held_out_every):
    for step in range(1, n + 1):
        judged = {"held_out_loss": 7 / step**0.2, "bits_per_byte": 2.0} if step % held_out_every == 0 else {}
        yield {"step": step, "loss": 6 / step**0.2} | judged


@pytest.mark.parametrize(("n", "held_out_every", "level"), [(1, 1, None), (1, 2, LEVEL), (7, 3, LEVEL), (300, 50, LEVEL)])
def test_a_curve_of_any_length_is_a_picture(tmp_path, n, held_out_every, level):
    (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines(n, held_out_every))))
    assert draw(tmp_path / "metrics.jsonl", tmp_path / "loss.png", level)
    content = (tmp_path / "loss.png").read_bytes()
    assert content.startswith(b"\x89PNG")
    assert len(content) > 10_000


@given(st.lists(st.floats(0, 10), min_size=1, max_size=200))
def test_smoothing_stays_between_the_values_it_smooths(values):
    smooth = running_mean(values)
    assert len(smooth) == len(values)
    assert smooth[0] == values[0]
    assert all(min(values) - 1e-9 <= x <= max(values) + 1e-9 for x in smooth)


def test_smoothing_leaves_a_straight_line_straight():
    values = [float(i) for i in range(100)]
    smooth = running_mean(values)
    assert smooth[:80] == pytest.approx(values[:80])
