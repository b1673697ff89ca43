"""Options that several commands share, as tables: a row says an option's type, what it is when it is not given, and its help.

A command takes a table's options by `@takes(TABLE, …)` and gets them by name in `**options`; one that was not given is None.
The same rows check the keys of a line of JSON, so that both ways of asking mean the same.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Annotated, Any, NamedTuple, get_args, get_origin

import typer

SHOWN = {int: "n", float: "x", str: "name"}  # what stands for a value in the help
TRUE_TYPES = {int: "a whole number", float: "a number", str: "a text", bool: "true or false", dict: "an object"}


class Option(NamedTuple):
    """One option; its name in a table is that of JSON's key, with _ for each - of the command line."""

    type: Any  # int, float, str, bool, or list[…] for one that may be repeated; dict, which only JSON has
    help: str
    default: Any = None  # what stands in for it, which its help shows
    metavar: str | None = None


Table = Mapping[str, Option]


def flag(name: str) -> str:
    """An option as it is typed."""
    return f"--{name.replace('_', '-')}"


def takes(*tables: tuple[str, Table]) -> Callable[[Callable], Callable]:
    """Give a command the options of tables, each under the heading of its panel in the help, in the place of its **options."""

    def add(command: Callable) -> Callable:
        signature = inspect.signature(command)
        own = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
        for heading, table in tables:
            for name, option in table.items():
                flags = (flag(name), f"--no-{flag(name)[2:]}") if option.type is bool and option.default else (flag(name),)
                text = (
                    option.help
                    if option.default is None or option.default is True
                    else f"{option.help[:-1]} (default: {option.default})."
                )
                told = typer.Option(
                    "/".join(flags),
                    help=text,
                    rich_help_panel=heading,
                    show_default=False,
                    metavar=option.metavar or SHOWN.get(option.type),
                )
                wanted: Any = Annotated[(option.type | None, told)]  # type: ignore[misc]  # the type is a value here
                own.append(inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=wanted))
                command.__annotations__[name] = wanted
        command.__signature__ = signature.replace(parameters=own)  # type: ignore[attr-defined]  # what inspect and typer read
        command.__annotations__.pop("options", None)
        return command

    return add


def with_defaults(table: Table, given: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a table's options by name: those given, else their defaults."""
    return {name: option.default if given.get(name) is None else given[name] for name, option in table.items()}


def checked(table: Table, name: str, value: Any) -> Any:
    """The value of a key of JSON as an option has it: a list where the option may be repeated, null as one not given.

    Raises ValueError for a key that no option has, and for a value of another type.
    """
    if name not in table:
        raise ValueError(f"{name!r} is not known; a line has prompt, id and {', '.join(table)}.")
    wanted = table[name].type
    if value is None:
        return None
    if get_origin(wanted) is list:
        each = get_args(wanted)[0]
        values = value if isinstance(value, list) else [value]
        if all(is_of(each, v) for v in values):
            return values
        raise ValueError(f"{name} is {value!r}; it must be {TRUE_TYPES[each]}, or a list of them.")
    if not is_of(wanted, value):
        raise ValueError(f"{name} is {value!r}; it must be {TRUE_TYPES[wanted]}.")
    return wanted(value)


def is_of(wanted: type, value: Any) -> bool:
    """Whether a value of JSON is of a type: a whole number is a number, and true is none."""
    if wanted is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, wanted) and (wanted is bool or not isinstance(value, bool))
