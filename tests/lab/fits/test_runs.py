"""Tables of runs."""

import pytest

from refllm.lab.fits.runs import read_runs, table


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
        "N;D;Loss\n1e6;2e7;3.5\n\n2e6;4e7;3.25;;\n",
        "parameters\ttokens\tloss\n1e6\t2e7\t3.5\n2e6\t4e7\t3.25\n",
        'n, d, loss\n1e6, "2e7", 3.5\n 2e6 ,4e7,3.25\n,,\n',
        '{"about": 1, "tables": {"runs": [{"N": 1e6, "D": 2e7, "L": 3.5}, {"N": 2e6, "C": 4.8e14, "L": 3.25}]}}',
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


def test_a_likelier_name_goes_before_another(tmp_path):
    runs = read_runs(written(tmp_path, "data,tokens,size,N,L,val_loss\nwiki,2e7,big,1e6,12,3.5\n"))
    assert (runs.parameters.tolist(), runs.tokens.tolist(), runs.loss.tolist()) == ([1e6], [2e7], [12])


def test_runs_are_told_apart_by_name_where_they_have_one(tmp_path):
    runs = read_runs(written(tmp_path, "run,N,D,L\na,1e6,2e7,3\nb,1e6,4e7,3\n,1e6,2e7,3\n,1e6,4e7,3\n"))
    assert runs.run.tolist() == ["a", "b", "1e+06/0", "1e+06/0"]


def test_the_unit_is_the_files_or_the_callers(tmp_path):
    plain = written(tmp_path, "N,D,L\n1e6,2e7,3\n")
    assert read_runs(plain, "bits/byte").unit == "bits/byte"
    said = written(tmp_path, "N,D,L,unit\n1e6,2e7,3,bits/byte\n")
    assert read_runs(said).unit == read_runs(said, "bits/byte").unit == "bits/byte"
    with pytest.raises(ValueError, match=r"--unit is nats/token, but .* has losses in bits/byte"):
        read_runs(said, "nats/token")


HEAD = "parameters,tokens,loss\n"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "holds no runs"),
        ("\n \n", "holds no runs"),
        (HEAD, "holds no runs"),
        ("[]", "holds no runs"),
        ("tokens,loss\n1,2\n", "has no column parameters; it has tokens, loss"),
        ("N D L\n1 2 3\n", "it has N D L alone .columns are separated by commas, semicolons or tabs"),
        ("parameters,loss\n1,2\n", "has neither tokens nor flops; it has parameters, loss"),
        ("1e6,2e7,3\n2e6,4e7,3\n", "has no header; its first line must name the columns"),
        ("N,D,loss,Loss\n1e6,2e7,3,4\n", "has two columns 'Loss'"),
        (HEAD + "1e6,2e7,nan\n", "line 2 of .* has loss 'nan', which is not a positive number; leave this run out, it diverged"),
        (HEAD + "1e6,2e7,inf\n", "loss 'inf', which is not a positive number; leave this run out, it diverged"),
        (HEAD + "1e6,2e7,-1\n", "loss '-1', which is not a positive number[.]"),
        (HEAD + "1e6,2e7,\n", "line 2 of .* has no loss; add it or leave this run out"),
        (HEAD + "1e6,2e7,3\n\n-5,2e7,3\n", "line 4 of .* has parameters '-5', which is not a positive number[.]"),
        (HEAD + "70M,2e7,3\n", "parameters '70M', which is not a number; write it like 1234567"),
        (HEAD + '"1,000,000",2e7,3\n', "parameters '1,000,000', which is not a number"),
        (HEAD + "1,000,000,2e7,3\n", "line 2 of .* has 5 cells for 3 columns; .* without thousands separators"),
        (HEAD + "1e6,2e7\n", "line 2 of .* has 2 cells for 3 columns"),
        (HEAD + "0.07,2e7,3\n", "line 2 of .* has 0.07 parameters; count them one by one"),
        (HEAD + "1e6,0.5,3\n", "line 2 of .* has 0.5 tokens; count them one by one"),
        ("N,D,C,L\n1e6,2e7,120,3\n", "flops that are 1e-12 times 6·N·D; count"),
        ("N,D,C,L\n1e6,2e7,1.2e17,3\n", r"flops that are 1e\+03 times 6·N·D; count"),
        (HEAD[:-1] + ",unit\n1e6,2e7,3,nats/token\n1e6,2e7,3,bits/byte\n", "mixes losses in bits/byte and nats/token"),
        (HEAD[:-1] + ",unit\n1e6,2e7,3,nats/token\n1e6,2e7,3,\n", "mixes losses in nats/token and no unit"),
        (HEAD[:-1] + ",unit\n1e6,2e7,3,perplexity\n", "the loss's unit is 'perplexity'; it must be one of"),
        ("{broken\n", "is neither JSON nor JSON Lines"),
        ("[1, 2]", "holds JSON that is not a list of runs; a run looks like"),
        ('{"tables": {"sizes": []}}', "holds JSON that is not a list of runs"),
        ('{"N": 1e6, "D": 2e7, "L": 3}\n{"N": 2e6, "L": 3}\n', "run 2 of .* has no tokens"),
        ('[{"N": true, "D": 2e7, "L": 3}]', "run 1 of .* has parameters True, which is not a number"),
        ('[{"N": [1e6], "D": 2e7, "L": 3}]', "which is not a number"),
        ("PK\0\0", "is not UTF-8 text; runs are CSV, JSON Lines or JSON"),
        ("N,D,L\n" + "1" * 200_000, "line 2: this is not CSV"),
    ],
)
def test_a_table_that_is_wrong_is_refused(tmp_path, text, says):
    with pytest.raises(ValueError, match=says):
        read_runs(written(tmp_path, text))


def test_what_is_no_table_at_all_is_refused(tmp_path):
    with pytest.raises(ValueError, match="is a folder; name a table of runs in it"):
        read_runs(tmp_path)
    (tmp_path / "bytes.csv").write_bytes(b"N,D,L\n\xff\xfe")
    with pytest.raises(ValueError, match="is not UTF-8 text"):
        read_runs(tmp_path / "bytes.csv")
