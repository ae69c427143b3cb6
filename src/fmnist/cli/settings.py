"""Settings on the command line: `--set name=value`, and the list of all settings."""

import inspect
import json
import re
import typing
from collections.abc import Collection, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

import msgspec
import typer

from fmnist.cli.terminal import console_for, print_json, table
from fmnist.config import Config

if TYPE_CHECKING:
    from fmnist.studies.plan import Range

NOT_SET = ("preset", "network", "data")
"""Settings with an option of their own, whose value is no plain one."""
RANGE = re.compile(r"(?P<name>[^=]+)=(?P<low>[-+.\de]+):(?P<high>[-+.\de]+)(?P<log>:log)?", re.IGNORECASE)
"""Of a search. The values are numbers, so no path is one."""


def parse_settings(pairs: Sequence[str], given: Collection[str] = ()) -> dict[str, Any]:
    """Parse settings, each to the type that `Config` declares.

    Args:
        pairs: each `name=value`. The values are numbers, words, `true`, `false`, `null`, or JSON.
        given: names of the settings that other options give.

    Raises:
        typer.BadParameter: for an unknown name, a name that is given twice, or a value of another type.
    """
    hints = _hints()
    values: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        name = name.strip().replace("-", "_")
        if not equals:
            raise typer.BadParameter(f"{pair!r} has no =; expected name=value", param_hint="'--set'")
        if name not in hints:
            close = get_close_matches(name, hints, 1)
            hint = f"did you mean {close[0]}? " if close else ""
            raise typer.BadParameter(
                f"unknown setting {name!r}; {hint}`fmnist train --help-settings` lists all", param_hint="'--set'"
            )
        if name in values or name in given:
            raise typer.BadParameter(f"{name} is given twice", param_hint="'--set'")
        values[name] = _parse(name, text.strip(), hints[name])
    return values


def parse_grid(pairs: list[str], given: dict[str, Any]) -> dict[str, list[Any]]:
    """Parse `name=value,value`: each name's values, of the type that `Config` declares."""
    grid: dict[str, list[Any]] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        name = name.strip().replace("-", "_")
        if name == "seed":
            raise typer.BadParameter("the seeds are given by --seeds", param_hint="'--set'")
        if RANGE.fullmatch(pair):
            raise typer.BadParameter(f"{pair} is a range, which needs --search N", param_hint="'--set'")
        parts = text.split(",") if equals and not text.startswith("[") else [text]
        for part in parts:
            (key, value), *_ = parse_settings([f"{name}{equals}{part}"], [*given, *(set(grid) - {name})]).items()
            grid.setdefault(key, []).append(value)
    return grid


def parse_ranges(pairs: list[str], changes: dict[str, Any]) -> list["Range"]:
    """Parse `name=low:high`, `name=low:high:log` and `name=value,value`.

    Args:
        pairs: the options.
        changes: settings that other options give. A single value is added to them.

    Returns:
        The ranges, in the order of the options.
    """
    from fmnist.studies.plan import Range

    ranges: list[Range] = []
    for pair in pairs:
        match = RANGE.fullmatch(pair)
        taken = {**changes, **{each.name: None for each in ranges}}
        if not match:
            ((name, choices),) = parse_grid([pair], taken).items()
            if len(choices) == 1:
                changes[name] = choices[0]
            else:
                ranges.append(Range(name=name, choices=tuple(choices)))
            continue
        ends = [parse_grid([f"{match['name']}={match[end]}"], taken) for end in ("low", "high")]
        ((name, (low,)),), ((_, (high,)),) = (end.items() for end in ends)
        if low >= high:
            raise typer.BadParameter(f"{pair} is no range; expected low:high, low below high", param_hint="'--set'")
        if match["log"] and low <= 0:
            raise typer.BadParameter(
                f"{pair} begins at {low}; a logarithmic range needs more than 0", param_hint="'--set'"
            )
        ranges.append(Range(name=name, low=low, high=high, log=bool(match["log"])))
    if not ranges:
        raise typer.BadParameter(
            "there is nothing to search; name a range, as --set learning_rate=.03:.3:log", param_hint="'--search'"
        )
    return ranges


def _parse(name: str, text: str, hint: Any) -> Any:
    """Convert a text to the declared type."""
    for read in (json.loads, float, str):  # .06 is no JSON, and a path can look like a number
        try:
            return msgspec.convert(read(text), hint)
        except (ValueError, RecursionError):  # also msgspec's
            continue
    raise typer.BadParameter(f"{name} is {text}; expected {describe_type(hint)}", param_hint="'--set'")


def describe_settings(preset: Config) -> list[dict[str, Any]]:
    """Return name, type, value and meaning of every setting that can be set.

    Args:
        preset: whose values are given.
    """
    values = preset.to_json()
    return [
        {"name": name, "type": describe_type(hint), "value": values[name], "meaning": meanings()[name]}
        for name, hint in _hints().items()
    ]


def print_settings(preset: Config, as_json: bool) -> None:
    """Print all settings, with the preset's values, as a table or as JSON."""
    rows = [
        [row["name"], row["type"], _format_value(row["value"]), row["meaning"]] for row in describe_settings(preset)
    ]
    console_for(as_json).print(table(None, ["setting", "type", preset.preset, "meaning"], rows, justify="left"))
    print_json(as_json, describe_settings(preset))


def meanings() -> dict[str, str]:
    """Return what each setting means, from the docstring of `Config`."""
    documentation = inspect.getdoc(Config) or ""
    entries = re.split(r"\n    (?=\w+: )", documentation.partition("Attributes:")[2])
    pairs = (entry.strip().partition(": ") for entry in entries if entry.strip())
    return {name: " ".join(meaning.split()) for name, _, meaning in pairs}


def describe_type(hint: Any) -> str:
    """Describe a type and its bounds in a few words: `int from 1 to 5000`, `one of adam, muon`."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        inner, *metas = arguments
        bounds = {
            name: getattr(meta, name) for meta in metas for name in ("ge", "le") if getattr(meta, name) is not None
        }
        limits = " ".join(f"{word} {bounds[name]}" for name, word in (("ge", "from"), ("le", "to")) if name in bounds)
        return f"{describe_type(inner)} {limits}".strip()
    if origin is typing.Literal:
        names = [name for name in arguments if name != "custom"]  # is for objects in Python
        return f"one of {', '.join(names)}" if len(names) > 1 else names[0]
    if origin is tuple:
        return "list of [mirrored, down, right]"
    if arguments:
        return " or ".join(describe_type(argument) for argument in arguments)
    return {bool: "true or false", str: "text", type(None): "null"}.get(hint, getattr(hint, "__name__", str(hint)))


def _format_value(value: Any) -> str:
    if isinstance(value, list | tuple):
        return f"{len(value)} views"
    return value if isinstance(value, str) else json.dumps(value)


def _hints() -> dict[str, Any]:
    hints = typing.get_type_hints(Config, include_extras=True)
    return {name: hints[name] for name in Config.__struct_fields__ if name not in NOT_SET}
