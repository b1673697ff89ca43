"""The laboratory's commands on tables of runs."""

import csv
import json
import sys

import numpy as np
import pytest

from refllm.cli.lab.common import json_of, short
from refllm.lab.fits.laws import BESIROGLU, LossLaw

SMALL = LossLaw(0.9, 16.5, 89.0, 0.38, 0.405)  # near what a sweep of minutes finds


@pytest.fixture
def runs(tmp_path):
    """A table of runs that follow a law, five budgets with seven sizes each."""
    rows = ["parameters,tokens,flops,loss"]
    for C in np.geomspace(1e18, 1e20, 5):
        for N in BESIROGLU.optimum(C)[0] * np.geomspace(0.25, 4, 7):
            rows.append(f"{N:.6g},{C / 6 / N:.6g},{C:.6g},{BESIROGLU.loss(N, C / 6 / N):.8g}")
    path = tmp_path / "runs.csv"
    path.write_text("\n".join(rows))
    return path


@pytest.fixture
def swept(tmp_path):
    """A table as a sweep has it: losses along the runs of six sizes, two seeds each, and FLOPs a third more than 6·N·D."""
    rows, rng = ["seed,parameters,tokens,flops,loss,unit"], np.random.default_rng(0)
    for N in 5e3 * 1.95 ** np.arange(6):
        for seed in (0, 1):
            off = np.exp(1e-3 * rng.standard_normal())
            for D in 1e5 * 2 ** (np.arange(10) / 2):
                rows.append(f"{seed},{N:.0f},{D:.0f},{8 * N * D:.6g},{SMALL.loss(N, D) * off:.8g},nats/character")
    path = tmp_path / "swept.csv"
    path.write_text("\n".join(rows))
    return path


def kept(folder, name):
    return json.loads((folder / f"{name}.json").read_text())


def table(folder, name):
    with (folder / f"{name}.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(
    ("arguments", "name", "tables", "figures"),
    [
        (["fit", "--resamples", "20"], "fit-ND", ("constants", "residuals"), ("law", "residuals")),
        (["isoflop"], "isoflop", ("minima", "losses"), ("valleys",)),
        (["frontier", "--resamples", "9", "--inference-tokens", "1e9"], "frontier", *[("splits", "lifetimes")] * 2),
        (["extrapolate", "--last"], "extrapolate-N", ("predictions",), ("errors",)),
        (["exponent", "--resamples", "9"], "exponent", ("factors",), ("factors",)),
    ],
)
def test_every_number_is_kept_as_json_and_csv_and_drawn(refllm, swept, tmp_path, monkeypatch, arguments, name, tables, figures):
    figure = pytest.importorskip("matplotlib.figure", reason="the extra `plots`")
    if name != "exponent":  # one is enough to see that files are drawn; rendering is slow
        monkeypatch.setattr(figure.Figure, "savefig", lambda self, path, metadata: path.write_bytes(b"." * 2000))
    command, *options = arguments
    done = refllm("lab", command, swept, *options, "--out", tmp_path / "out", "--json")
    assert done.status == 0, done
    assert json.loads(done.out) == kept(tmp_path / "out", name)
    expected = {
        f"{name}.json",
        *(f"{name}-{t}.csv" for t in tables),
        *(f"{name}-{f}.{k}" for f in figures for k in ("png", "svg")),
    }
    assert {path.name for path in (tmp_path / "out").iterdir()} == expected
    assert all(table(tmp_path / "out", f"{name}-{one}") for one in tables)
    assert all((tmp_path / "out" / f"{name}-{figure}.png").stat().st_size > 1000 for figure in figures)


def test_a_fit_finds_the_law_and_says_how_it_can_be_read(refllm, runs, swept, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    done = refllm("lab", "fit", runs, "--resamples", "20", "--out", tmp_path / "fit")
    assert "L = E + A / N^alpha + B / D^beta" in done.out
    assert "35 losses, in nats/token" in done.out
    about, rows = kept(tmp_path / "fit", "fit-ND"), table(tmp_path / "fit", "fit-ND-constants")
    assert about["constants"]["alpha"] == pytest.approx(BESIROGLU.alpha, rel=1e-3)
    assert {row["symbol"]: float(row["value"]) for row in rows} == about["constants"]
    assert {row["symbol"]: [float(row["low"]), float(row["high"])] for row in rows} == about["intervals"]
    residuals = table(tmp_path / "fit", "fit-ND-residuals")
    assert [float(row["residual"]) for row in residuals] == about["residuals"]
    assert all(np.log(float(r["loss"]) / float(r["fitted"])) == pytest.approx(float(r["residual"]), abs=1e-12) for r in residuals)
    last = refllm("lab", "fit", swept, "--law", "N", "--last", "--resamples", "0").out
    halved = 2 ** (1 / SMALL.alpha)
    assert "doubling N multiplies the reducible loss by 0.7" in last
    assert float(last.split(" times as much halves it")[0].split()[-1]) == pytest.approx(halved, rel=0.2)
    assert "95 %" not in last
    assert "ignores that" not in last
    without = refllm("lab", "fit", swept, "--law", "N", "--last", "--floor", "none", "--resamples", "0").out
    assert "L = A / N^alpha " in without
    assert "doubling N multiplies the loss by 0.9" in without


@pytest.mark.parametrize(
    ("law", "says"),
    [
        (
            "N",
            "L(N) ignores that these losses have 1e+05 to 2.26e+06 tokens; fit it to the last losses (--last), or fit L(N, D).",
        ),
        (
            "D",
            "L(D) ignores that these losses have 5e+03 to 1.41e+05 parameters; fit it to the losses of one size, or fit L(N, D).",
        ),
        ("C", "L(C) is a law of the best loss at each C, and "),
    ],
)
def test_a_law_in_one_variable_warns_of_the_other(refllm, swept, law, says):
    done = refllm("lab", "fit", swept, "--law", law, "--resamples", "0", "--json")
    assert any(says in sentence for sentence in json.loads(done.out)["warnings"])


def test_early_losses_may_be_left_out(refllm, swept):
    with swept.open() as file:
        rows = [(float(row["tokens"]), float(row["tokens"]) / float(row["parameters"])) for row in csv.DictReader(file)]
    for options, expected in (
        (["--min-tokens", "5e5"], sum(D >= 5e5 for D, _ in rows)),
        (["--min-ratio", "20"], sum(ratio >= 20 for _, ratio in rows)),
        (["--last"], 12),
        ([], 120),
    ):
        about = json.loads(refllm("lab", "fit", swept, *options, "--law", "N", "--resamples", "0", "--json").out)
        assert about["losses"] == expected < 121, options


def test_the_other_commands_agree_with_the_law(refllm, runs):
    said = {}
    for name, *options in (["isoflop"], ["frontier", "--resamples", "9"], ["extrapolate", "--law", "ND", "--by", "flops"]):
        done = refllm("lab", name, runs, *options, "--json")
        assert done.status == 0, done
        said[name] = json.loads(done.out)
    assert said["isoflop"]["exponent"] == pytest.approx(BESIROGLU.parameter_exponent, abs=1e-3)
    assert said["isoflop"]["exponent_by_fit"] == pytest.approx(BESIROGLU.parameter_exponent, abs=1e-3)
    assert not said["isoflop"]["interpolated"]
    for row in said["isoflop"]["valleys"]:
        assert row["bias"] == pytest.approx(row["parameters"] / BESIROGLU.optimum(row["flops"])[0], abs=1e-4)
        assert row["bias"] == pytest.approx(0.996, abs=1e-3)
    assert said["frontier"]["exponent"] == pytest.approx(BESIROGLU.parameter_exponent, abs=1e-3)
    assert said["frontier"]["lifetimes"] == []
    assert max(abs(row["error"]) for row in said["extrapolate"]["rows"] if row["law"] == "with a floor") < 1e-3
    assert said["extrapolate"]["better"] == "with a floor"
    done = refllm("lab", "exponent", runs, "--resamples", "9", "--json")
    ours = json.loads(done.out)["rows"][-1]
    assert ours["law"] == "these runs"
    assert ours["compute"] == pytest.approx(2 ** (1 / BESIROGLU.compute_exponent), rel=0.01)
    assert ours["low"] < ours["compute"] * (1 + 1e-6)
    assert json.loads(refllm("lab", "exponent", "--json").out)["rows"][-1]["law"] == "Kaplan 2020"


def test_predictions_are_shown_in_a_table_that_fits(refllm, swept, tmp_path):
    done = refllm("lab", "extrapolate", swept, "--law", "ND", "--largest", "2")
    assert 10 < sum(line.startswith("│") for line in done.out.splitlines()) <= 24  # of 80
    assert "without a floor predicts better" in done.out or "with a floor predicts better" in done.out
    few = tmp_path / "few.csv"
    few.write_text("N,D,L\n" + "".join(f"{10**n},1e9,{3 - n / 10}\n" for n in range(4, 8)))
    alone = refllm("lab", "extrapolate", few).out
    assert "There are too few smaller runs to fit a law with a floor." in alone
    assert "predicts better" not in alone


def test_a_sweeps_budgets_are_read_along_its_runs(refllm, swept):
    done = refllm("lab", "isoflop", swept, "--json")
    about = json.loads(done.out)
    assert about["interpolated"]
    assert about["exponent"] == pytest.approx(about["exponent_by_fit"], abs=0.03)
    for row in about["valleys"]:
        assert row["tokens"] is None or row["flops"] == pytest.approx(8 * row["parameters"] * row["tokens"], rel=1e-3)
    text = refllm("lab", "isoflop", swept).out
    assert "Losses are interpolated along the runs" in text
    assert about["left_out"] == 0
    assert "Budgets left out" not in text
    assert "With any one size left out, the exponent is 0." in text
    assert "losses in nats/character" in text
    chosen = json.loads(refllm("lab", "isoflop", swept, "--budget", "3e10", "--budget", "6e10", "--json").out)
    assert [row["flops"] for row in chosen["valleys"]] == [3e10, 6e10]
    small = refllm("lab", "isoflop", swept, "--budget", "1e9", "--budget", "2e9")
    small.refused("no budget is reached by three sizes")


def test_budgets_without_a_minimum_among_the_sizes_are_counted(refllm, runs):
    with runs.open("a") as file:
        for N in BESIROGLU.optimum(1e21)[0] * np.geomspace(4, 64, 7):
            file.write(f"\n{N:.6g},{1e21 / 6 / N:.6g},1e21,{BESIROGLU.loss(N, 1e21 / 6 / N):.8g}")
    assert json.loads(refllm("lab", "isoflop", runs, "--json").out)["left_out"] == 1
    assert "Budgets left out, since their minimum is not within the range of sizes: 1." in refllm("lab", "isoflop", runs).out


def test_the_frontier_is_told_budget_by_budget(refllm, runs):
    text = refllm("lab", "frontier", runs, "--resamples", "0", "--budget", "1e14", "--budget", "1e13").out
    told = [line.split("│")[1:3] for line in text.splitlines() if line.startswith("│")]
    assert [float(C) for _, C in told] == 5 * [1e13] + 5 * [1e14]
    assert [law.strip() for law, _ in told[::5]] == ["these runs"] * 2


def test_the_frontier_says_what_its_compute_counts(refllm, swept, runs):
    done = refllm("lab", "frontier", swept, "--resamples", "0")
    assert "C is 6·N·D here; the runs' own FLOPs are 1.33 to 1.33 times that." in done.out
    assert "far below that, compare exponents only" in done.out
    assert "0.78 (Besiroglu 2024)" in done.out
    plain = refllm("lab", "frontier", runs, "--resamples", "0").out
    assert "own FLOPs" not in plain
    assert "far below" not in plain
    splits = json.loads(refllm("lab", "frontier", swept, "--resamples", "0", "--json").out)["splits"]
    spent = [5e3 * 1.95**5 * 2262742 * 6 * factor for factor in (1, 10, 100)]
    assert [split["flops"] for split in splits[:3]] == pytest.approx(spent, rel=1e-3)


def test_inference_is_planned_for(refllm, runs):
    done = refllm("lab", "frontier", runs, "--budget", "1e20", "--inference-tokens", "1e12", "--resamples", "9", "--json")
    (life,) = json.loads(done.out)["lifetimes"]
    N, D = BESIROGLU.lifetime_optimum(float(BESIROGLU.loss(*BESIROGLU.optimum(1e20))), 1e12)
    assert (life["parameters"], life["tokens"]) == pytest.approx((N, D), rel=0.01)
    assert life["saved"] == pytest.approx(1 - life["total"] / life["total_of_best_training"])
    text = refllm("lab", "frontier", runs, "--budget", "1e20", "--inference-tokens", "1e12", "--resamples", "0").out
    assert f"{100 * life['saved']:.1f} %" in text
    assert "with 1T tokens of inference" in text


def test_few_columns_fit_eighty_characters(refllm, swept, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    done = refllm("lab", "frontier", swept, "--resamples", "9", "--inference-tokens", "1e9")
    tables = [line for line in done.out.splitlines() if line.startswith("│")]
    assert len(tables) == 3 * 5 + 3  # no cell is folded
    published = [line.split("│")[-2].strip() for line in tables if "Hoffmann" in line or "Kaplan" in line]
    assert published == [""] * 6  # losses of another vocabulary
    assert max(map(len, done.out.splitlines())) <= 80


def test_without_matplotlib_numbers_are_kept_and_it_is_said(refllm, runs, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    done = refllm("lab", "isoflop", runs, "--out", tmp_path / "out")
    assert done.status == 0
    assert "plots need matplotlib: pip install 'refllm[plots]'" in " ".join(done.out.split())
    assert {path.suffix for path in (tmp_path / "out").iterdir()} == {".json", ".csv"}


def test_what_json_has_no_number_for_is_null():
    assert json.loads(json_of({"a": [1.5, float("nan")], "b": (float("inf"), None, "x")})) == {
        "a": [1.5, None],
        "b": [None, None, "x"],
    }
    assert [short(x) for x in (12.0, 837e6, 1.99e12, 1.5e16, 4.2e3)] == ["12", "837M", "1.99T", "1.5e+16", "4.2k"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["fit", "RUNS", "--law", "X"], "--law 'X' is not a law; choose one of N, D, C, ND"),
        (["fit", "RUNS", "--floor", "high"], "--floor 'high' is neither fit, none nor a loss"),
        (["fit", "RUNS", "--floor", "9"], "lies at or below the floor"),
        (["fit", "RUNS", "--floor", "nan"], "--floor nan must be a positive number"),
        (["fit", "RUNS", "--floor", "-1"], "--floor -1 must be a positive number"),
        (["fit", "RUNS", "--delta", "0"], "--delta 0 must be a positive number"),
        (["fit", "RUNS", "--min-tokens", "1e30"], "none of the 35 losses"),
        (["fit", "RUNS", "--unit", "furlongs"], "the loss's unit is 'furlongs'; it must be one of nats/token"),
        (["fit", "RUNS", "--out", "RUNS"], "file exists"),
        (["fit", "nothing.csv"], "no such file"),
        (["fit", "."], "is a folder; name a table of runs in it"),
        (["isoflop", "RUNS", "--budget", "-1"], "--budget -1 must be a positive number"),
        (["isoflop", "RUNS", "--budget", "1e18"], "1 of 1 budgets"),
        (["isoflop", "ONE"], "no budget is reached by three sizes"),
        (["frontier", "ONE"], "have 1 value of parameters; a law in N needs at least 3"),
        (["frontier", "RUNS", "--budget", "inf"], "--budget inf must be a positive number"),
        (["frontier", "RUNS", "--inference-tokens", "-5"], "--inference-tokens -5 must be a positive number"),
        (["frontier", "RISING"], "by these runs the loss does not fall with N"),
        (["exponent", "RISING"], "by these runs the loss does not fall with N"),
        (["extrapolate", "ONE"], "the runs have 1 value of parameters; 1 of them cannot be held out"),
        (["extrapolate", "RUNS", "--by", "loss"], "--by 'loss' is neither"),
        (["extrapolate", "RUNS", "--largest", "99"], "99 of them cannot be held out"),
        (["exponent", "--share", "2"], "--share 2.0 must lie between 0 and 1"),
    ],
)
def test_wrong_input_is_refused_in_a_sentence(refllm, runs, tmp_path, arguments, says):
    one, rising = tmp_path / "one.csv", tmp_path / "rising.csv"
    one.write_text("N,D,L\n" + "".join(f"1e6,{d}e7,{3 - d / 10}\n" for d in range(1, 9)))
    rising.write_text("N,D,L\n" + "".join(f"{n}e6,{d}e7,{3 + n / 10 - d / 20}\n" for n in range(1, 5) for d in range(1, 5)))
    places = {"RUNS": runs, "ONE": one, "RISING": rising}
    refllm("lab", *(places.get(a, a) for a in arguments)).refused(says)
