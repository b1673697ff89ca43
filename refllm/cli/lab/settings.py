"""An experiment's settings: shown behind the command's help, and changed by --set."""

import dataclasses
import inspect
from typing import Any

from typer.core import TyperCommand


class WithSettings(TyperCommand):
    """A command whose help ends with the settings of the experiment of its name, which is imported for that alone."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help."""
        from rich.console import Console

        from refllm.lab.experiments import experiment

        super().format_help(ctx, formatter)
        module = experiment(self.name or "")
        console = Console(highlight=False)
        console.print(table(module.Settings(), module.QUICK))
        console.print(inspect.cleandoc(module.Settings.__doc__), style="dim", markup=False)


def table(whole: Any, quick: Any) -> Any:
    """Names, defaults and what --quick makes of them."""
    from rich.table import Table

    rows = Table(title="Settings, for --set NAME=VALUE", title_justify="left", title_style="bold")
    for column in ("name", "default", "--quick"):
        rows.add_column(column, overflow="fold")
    for field in dataclasses.fields(whole):
        default, other = (said(getattr(settings, field.name)) for settings in (whole, quick))
        rows.add_row(field.name, default, other if other != default else "")
    return rows


def said(value: Any) -> str:
    """A value as --set takes it."""
    return ",".join(map(said, value)) if isinstance(value, tuple) else str(value)


def changed(settings: Any, changes: list[str]) -> Any:
    """Settings with some of them replaced, each said as name=value; lists are separated by commas.

    Raises ValueError for a name that is no setting or a value of another kind.
    """
    fields = {f.name: getattr(settings, f.name) for f in dataclasses.fields(settings)}
    values = {}
    for change in changes:
        name, given, value = change.partition("=")
        if name not in fields or not given:
            raise ValueError(f"--set {change!r} must be name=value with one of {', '.join(fields)}.")
        values[name] = _parsed(name, value, fields[name])
    return dataclasses.replace(settings, **values)


def _parsed(name: str, value: str, before: Any) -> Any:
    """The value as the kind that the setting has."""
    if isinstance(before, tuple):
        return tuple(_parsed(name, part, before[0]) for part in value.split(",") if part)
    if isinstance(before, bool):
        if value not in ("true", "false"):
            raise ValueError(f"--set {name}={value} must be true or false.")
        return value == "true"
    try:
        return type(before)(value)
    except ValueError:
        raise ValueError(f"--set {name}={value} is not a number such as {before!r}.") from None
