"""The bookkeeping of times and bytes, with a clock that only forward passes move."""

import copy

import numpy as np
import pytest

from refllm.bench import floor
from refllm.lab.experiment import conduct
from refllm.lab.experiments import latency
from refllm.models import architecture
from refllm.models.model import Model


class Clocked:
    """An architecture that takes 5 seconds a pass, and 1 for each token of it."""

    def __init__(self):
        self.seconds, self.passes = 0.0, []

    def __getattr__(self, name):
        return getattr(architecture("llama"), name)

    def forward(self, params, tokens, *rest, **named):
        self.passes.append(tokens.shape[1])
        self.seconds += 5 + tokens.shape[1]
        return architecture("llama").forward(params, tokens, *rest, **named)


def tiny(**changes):
    return architecture("llama").Config(
        **{"vocab_size": 11, "d_model": 8, "n_layers": 2, "n_heads": 2, "n_kv_heads": 1, "d_head": 4, "d_ff": 16}
        | {"max_positions": 400}
        | changes
    )


def test_reading_shares_a_pass_among_its_tokens_and_writing_takes_one_for_each():
    model, clock = Model.initialise("llama", tiny(), 0, "numpy"), Clocked()
    model = Model(clock, model.config, model.params)
    read, write = latency.timed(model, latency.prompt(model, 20, 0), 3, lambda: clock.seconds)
    assert clock.passes == [20, 1, 1, 1]
    assert (read, write) == (25 / 20, 6.0)


def test_times_are_milliseconds_between_the_fastest_and_the_slowest_try(monkeypatch):
    monkeypatch.setattr(floor, "speeds", lambda model: floor.Speeds(bandwidth=1e6, matrix=1e9))
    model = Model.initialise("llama", tiny(), 0, "numpy")
    row = latency.row(model, 16, latency.Times([1.0, 6.0, 2.0], [0.5, 0.25, 1.5]), 4)
    assert (row["read_ms"], row["read_low_ms"], row["read_high_ms"]) == (2000, 1000, 6000)
    assert (row["write_ms"], row["write_low_ms"], row["write_high_ms"]) == (500, 250, 1500)
    assert row["read_floor_ms"] == pytest.approx(floor.prefill_work(model, 16).bytes / 1e6 * 1e3 / 16)
    assert row["write_floor_ms"] == pytest.approx(floor.token_work(model, 18).bytes / 1e6 * 1e3)


def test_bytes_grow_with_every_position_until_a_window_holds_no_more():
    model = Model.initialise("llama", tiny(), 0, "numpy")
    rows = {n: latency.bytes_row(model, n, window=40) for n in (16, 32, 160, 320)}
    position = 2 * 2 * 1 * 4 * 4  # keys and values, layers, heads, d_head, bytes
    for n, row in rows.items():
        assert row["cache_bytes"] == row["cache_formula_bytes"] == n * position
        assert row["windowed_formula_bytes"] == min(n, 40) * position
        assert 0 <= row["windowed_bytes"] - row["windowed_formula_bytes"] <= row["slack_bytes"] == 2 * 16 * position
    assert rows[160]["windowed_bytes"] == rows[320]["windowed_bytes"]


def test_a_model_that_knows_no_window_has_no_twin():
    config = architecture("gpt2").Config(11, 8, 2, 2, 64, 16)
    row = latency.bytes_row(Model.initialise("gpt2", config, 0, "numpy"), 16, 8)
    assert set(row) == {"length", "cache_bytes", "cache_formula_bytes", "slack_bytes"}


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    settings = latency.Settings(d_model=8, n_layers=1, vocab_size=16, lengths=(1, 8), written=2, tries=2, window=4)
    return conduct(latency, settings, tmp_path_factory.mktemp("lab"), report=lambda line: None)


def test_every_length_is_timed_and_its_bytes_are_counted(result):
    assert [row["length"] for row in result["tables"]["times"]] == [1, 8]
    assert [row["length"] for row in result["tables"]["bytes"]] == [1, 8]
    for row in result["tables"]["times"]:
        assert 0 < row["read_low_ms"] <= row["read_ms"] <= row["read_high_ms"]
        assert 0 < row["write_low_ms"] <= row["write_ms"] <= row["write_high_ms"]
    last = result["tables"]["times"][-1]
    waiting = 100 * last["write_ms"]
    assert result["numbers"]["decoding_share"] == pytest.approx(waiting / (waiting + 8 * last["read_ms"]))


def test_the_first_of_all_tries_warms_up_and_the_lengths_take_turns(monkeypatch):
    lengths = []

    def timed(model, tokens, written, now):
        lengths.append(tokens.shape[1])
        return len(lengths) / 1e3, 100 * len(lengths) / 1e3

    monkeypatch.setattr(latency, "timed", timed)
    settings = latency.Settings(d_model=8, n_layers=1, vocab_size=16, lengths=(8, 2), written=2, tries=3, window=4)
    first, last = latency.measured(settings)["tables"]["times"]
    assert lengths == [2, 8] * 4
    assert [first[f"read{part}_ms"] for part in ("_low", "", "_high")] == pytest.approx([3, 5, 7])
    assert [last[f"read{part}_ms"] for part in ("_low", "", "_high")] == pytest.approx([4, 6, 8])
    assert [last[f"write{part}_ms"] for part in ("_low", "", "_high")] == pytest.approx([400, 600, 800])


def test_lengths_beyond_a_models_context_are_left_out(tmp_path):
    from refllm.checkpoints import save

    save(tmp_path / "mine", Model.initialise("llama", tiny(max_positions=12), 0, "numpy"))
    found = latency.measured(latency.Settings(checkpoint=str(tmp_path / "mine"), lengths=(10, 2, 11, 10), written=2, tries=1))
    assert [row["length"] for row in found["tables"]["times"]] == [2, 10]


def test_a_context_too_short_for_any_length_is_an_error(tmp_path):
    from refllm.checkpoints import save

    save(tmp_path / "mine", Model.initialise("llama", tiny(max_positions=12), 0, "numpy"))
    with pytest.raises(ValueError, match="a prompt of 11 tokens and 2 more exceed the model's context of 12"):
        latency.measured(latency.Settings(checkpoint=str(tmp_path / "mine"), lengths=(11, 20), written=2, tries=1))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"lengths": ()}, r"lengths=\(\) must be"),
        ({"lengths": (4, 0)}, r"lengths=\(4, 0\) must be"),
        ({"written": 0}, "written=0 must"),
        ({"tries": 0}, "tries=0 must"),
        ({"window": 0}, "window=0 must"),
        ({"answer": 0}, "answer=0 must"),
    ],
)
def test_settings_that_measure_nothing_are_an_error(change, says):
    with pytest.raises(ValueError, match=says):
        latency.Settings(**change)


def test_a_model_that_does_not_decode_is_an_error(tmp_path):
    from refllm.checkpoints import save

    config = architecture("bert").Config(11, 8, 1, 2, 16, 16)
    save(tmp_path / "mine", Model.initialise("bert", config, 0, "numpy"))
    with pytest.raises(ValueError, match="does not continue a text"):
        latency.measured(latency.Settings(checkpoint=str(tmp_path / "mine"), lengths=(2,)))


@pytest.mark.parametrize(
    ("write", "bytes_more", "verdict"),
    [
        ((4.0, 5.0, 6.0), 0, "holds"),
        ((1.0, 5.0, 6.0), 0, "undecidable at this scale"),
        ((0.1, 0.2, 0.3), 0, "fails"),
        ((4.0, 5.0, 6.0), -1, "fails"),
        ((4.0, 5.0, 6.0), 10**9, "fails"),
    ],
)
def test_the_claim_is_judged_by_the_slowest_and_fastest_tries_and_the_bytes(result, write, bytes_more, verdict):
    for kind in ("cache", "windowed"):
        found = copy.deepcopy(result)
        last = found["tables"]["times"][-1]
        last |= {"read_low_ms": 1.0, "read_ms": 2.0, "read_high_ms": 3.0}
        last |= dict(zip(("write_low_ms", "write_ms", "write_high_ms"), write, strict=True))
        row = found["tables"]["bytes"][0]
        row[f"{kind}_bytes"] = row[f"{kind}_formula_bytes"] + bytes_more
        finding = latency.CLAIMS[0].judge({"latency": found})
        assert finding.verdict == verdict
        assert (finding.low, finding.value, finding.high) == (write[0] / 3, write[1] / 2, write[2] / 1)


def test_a_model_of_random_weights_has_room_for_the_longest_prompt_and_heads_of_64():
    config = latency.model_of(latency.Settings(d_model=64, n_layers=1, vocab_size=16, lengths=(3, 9, 5), written=4)).config
    assert (config.max_positions, config.n_heads, config.n_kv_heads, config.d_head) == (13, 1, 1, 64)
    config = latency.model_of(latency.Settings(d_model=128, n_layers=1, vocab_size=16)).config
    assert (config.n_heads, config.n_kv_heads, config.d_head, config.tied) == (2, 2, 64, True)


def test_prompts_are_the_same_at_every_try():
    model = Model.initialise("llama", tiny(), 0, "numpy")
    np.testing.assert_array_equal(latency.prompt(model, 9, 1), latency.prompt(model, 9, 1))
