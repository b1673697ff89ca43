"""The README is true: its links lead somewhere, its Python runs, and its commands are those that CI runs."""

import re
from pathlib import Path

import pytest

from refllm import Model, save
from refllm.cli.commands import COMMANDS
from refllm.models.llama import Config
from refllm.tokenizer import train_bpe

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("code", BLOCKS, ids=["in_twelve_lines", "a_layer"])
def test_the_readmes_python_runs(code, tmp_path, monkeypatch, capsys):
    tokenizer = train_bpe("The with statement is a statement. A function definition is executable. " * 20, 300)
    config = Config(tokenizer.vocab_size, 8, 1, 2, 1, 4, 16, 64)
    model = Model.initialise("llama", config, seed=0, tokenizer=tokenizer)
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "runs" / "quickstart" / "best", model)
    names: dict = {}
    exec(code, names)
    if "grads" in names:
        assert names["grads"].keys() == model.params.keys()
        assert "parameters on numpy" in capsys.readouterr().out
        assert len(code.strip().splitlines()) <= 14  # twelve lines of code, and air
    else:
        assert names["dx"].shape == (2, 8)


def test_the_readmes_links_lead_somewhere():
    links = re.findall(r"\]\((?!https?://)([^)#]+)\)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_the_readme_names_every_folder_and_command():
    folders = [p.name for p in (ROOT / "refllm").iterdir() if (p / "__init__.py").is_file()]
    assert [name for name in folders if f"refllm/{name}/" not in README] == []
    assert [name for name in COMMANDS if f"`{name}`" not in README and name != "version"] == []


def test_ci_runs_the_readmes_commands():
    assert "pip install -e . && refllm quickstart" in README
    assert "pip install -e '.[test]' && pytest" in README
    assert "grep -m1 -F \"pip install -e '.[test]' && pytest\" README.md" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")
