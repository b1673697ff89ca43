"""An experiment's settings in its command's help, and as --set takes them."""

import dataclasses

import pytest

from refllm.cli.lab.settings import changed, said
from refllm.lab.experiments import EXPERIMENTS, experiment


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_settings_as_they_are_shown_are_those_that_set_takes(name):
    module = experiment(name)
    given = {field.name: getattr(module.QUICK, field.name) for field in dataclasses.fields(module.QUICK)}
    assert changed(module.Settings(), [f"{key}={said(value)}" for key, value in given.items()]) == module.QUICK


def test_help_names_every_setting_its_default_and_what_quick_makes_of_it(refllm):
    lines = refllm("lab", "masked", "--help").out.splitlines()
    settings = experiment("masked").Settings
    rows = {cells[1].strip(): [cell.strip() for cell in cells[2:4]] for line in lines if len(cells := line.split("│")) == 5}
    assert {field.name for field in dataclasses.fields(settings)} <= rows.keys()
    assert rows["longest"] == ["6", "5"]
    assert rows["seed"] == ["0", ""]
    assert any("longest: " in line for line in lines)
