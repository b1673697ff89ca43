"""Tables of runs."""

import pytest

from refllm.lab.runs import read_runs, table


def written(tmp_path, text, name="runs.csv"):
    path = tmp_path / name
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    "text",
    [
        "parameters,tokens,loss\n1e6,2e7,3.5\n2e6,4e7,3.25\n",
        "Model Size,Training FLOP,loss\n1e6,1.2e14,3.5\n2e6,4.8e14,3.25\n",
        '{"N": 1e6, "D": 2e7, "val_loss": 3.5}\n{"N": 2e6, "D": 4e7, "val_loss": 3.25}\n',
        '[{"params": 1000000, "tokens": 20000000, "L": 3.5}, {"params": 2e6, "tokens": 4e7, "L": 3.25}]',
    ],
)
def test_columns_are_found_by_their_usual_names(tmp_path, text):
    runs = read_runs(written(tmp_path, text))
    assert runs.parameters.tolist() == [1e6, 2e6]
    assert runs.tokens == pytest.approx([2e7, 4e7])
    assert runs.flops == pytest.approx([1.2e14, 4.8e14])
    assert runs.loss.tolist() == [3.5, 3.25]
    assert runs.unit == "nats/token"


def test_losses_of_one_model_and_seed_are_of_one_run():
    rows = [{"parameters": n, "tokens": d, "loss": 3, "seed": s} for n in (1, 2) for s in (0, 1) for d in (10, 20)]
    assert len(set(table(rows, ["nats/token"]).run)) == 4


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("parameters,tokens,loss\n", "holds no runs"),
        ("tokens,loss\n1,2\n", "has no column parameters; it has tokens, loss"),
        ("parameters,loss\n1,2\n", "has neither tokens nor flops"),
        ("parameters,tokens,loss\n1e6,2e7,nan\n", "run 1 of .* has loss 'nan', which is no positive number; take the run out"),
        ("parameters,tokens,loss\n1e6,2e7,3\n-5,2e7,3\n", "run 2 of .* has parameters '-5'"),
        ("parameters,tokens,loss,unit\n1e6,2e7,3,nats/token\n1e6,2e7,3,bits/byte\n", "mixes losses in bits/byte and nats/token"),
        ("parameters,tokens,loss,unit\n1e6,2e7,3,perplexity\n", "the loss's unit is 'perplexity'; it must be one of"),
        ("{broken\n", "is not JSON"),
    ],
)
def test_a_table_that_is_wrong_is_refused(tmp_path, text, says):
    with pytest.raises(ValueError, match=says):
        read_runs(written(tmp_path, text))
