"""Config fields as command-line flags: one typer option per field, from its type, bounds, default and description.

A field without a description gets no flag. Flags that were not given do not appear in ``Given``, so a config file can stand
between them and the defaults.
"""

from __future__ import annotations

import functools
import inspect
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import GenericAlias
from typing import Annotated, Any, TypeVar, get_origin

import msgspec
import typer
from msgspec import inspect as shape
from typer.core import TyperCommand

from octavo.config import from_mapping, refuse_unknown
from octavo.errors import ConfigError

C = TypeVar("C", bound=msgspec.Struct)
Settings = type[msgspec.Struct]


class GroupedCommand(TyperCommand):
    """Plain ``--help`` with the options under the headings of their groups: 30 flags in one list help nobody."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Click's hook: one section per option group."""
        headings: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                other = "Arguments" if parameter.param_type_name == "argument" else "Options"
                headings.setdefault(getattr(parameter, "rich_help_panel", None) or other, []).append(record)
        for heading, records in headings.items():
            with formatter.section(heading):
                formatter.write_dl(records, col_max=26)


@dataclass(frozen=True)
class FlagGroup:
    """The flags of one config class, under one heading of ``--help``. ``defaults`` differ from the class's for this command."""

    kind: Settings
    heading: str
    only: tuple[str, ...] = ()  # empty: every field that has a description
    omit: tuple[str, ...] = ()
    defaults: dict[str, Any] = field(default_factory=dict)


@dataclass
class Given:
    """What the user gave, by config class."""

    groups: tuple[FlagGroup, ...]
    flags: dict[Settings, dict[str, Any]] = field(default_factory=dict)
    file: dict[Settings, dict[str, Any]] = field(default_factory=dict)

    def config(self, kind: type[C]) -> C:
        """Flags over file over the command's defaults over the class's. Raises ``ConfigError``."""
        defaults = next(group.defaults for group in self.groups if group.kind is kind)
        return from_mapping(kind, {**defaults, **self.file.get(kind, {}), **self.flags.get(kind, {})})

    def read_file(self, path: Path, also: tuple[str, ...] = ()) -> dict[str, Any]:
        """Take settings from a TOML file: flat ``key = value`` lines, keys named like the fields.

        Returns the values of the keys in ``also``, which belong to no class. Raises ``ConfigError``.
        """
        values = _read_toml(path)
        known = [name for group in self.groups for name in group.kind.__struct_fields__]
        try:
            refuse_unknown(values, [*known, *also])
        except ConfigError as error:
            raise ConfigError(f"{path}: {error.message}", param=error.param) from None
        for group in self.groups:
            self.file[group.kind] = {key: values[key] for key in group.kind.__struct_fields__ if key in values}
        return {key: values[key] for key in also if key in values}


def with_flags(*groups: FlagGroup) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Decorate a typer command that has a keyword parameter ``given: Given``: it gets one option per field instead."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = inspect.signature(command, eval_str=True)
        flags = [(group.kind, name, parameter) for group in groups for name, parameter in _parameters(group)]
        parameters = [parameter for name, parameter in own.parameters.items() if name != "given"]

        @functools.wraps(command)
        def run(**values: Any) -> None:
            given = Given(groups, {group.kind: {} for group in groups})
            for kind, name, _ in flags:
                value = values.pop(name)
                if value is not None and value != []:
                    given.flags[kind][name] = value
            command(given=given, **values)

        run.__signature__ = own.replace(  # type: ignore[attr-defined]
            parameters=[*parameters, *(parameter for _, _, parameter in flags)]
        )
        run.__annotations__ = {}  # typer reads the signature; the command's own annotations name `given`
        return run

    return decorate


def _parameters(group: FlagGroup) -> Iterator[tuple[str, inspect.Parameter]]:
    described = shape.type_info(group.kind)
    assert isinstance(described, shape.StructType)
    for one in described.fields:
        unwrapped = _unwrap(one.type)
        if unwrapped.help and one.name not in group.omit and (not group.only or one.name in group.only):
            default = group.defaults.get(one.name, one.default)
            yield one.name, _parameter(one.name, unwrapped, default, group.heading)


@dataclass(frozen=True)
class _Flag:
    """A field as a command line sees it. Bounds are not checked here but with the file's values, by ``from_mapping``."""

    type: Any
    metavar: str | None = None
    help: str = ""


def _unwrap(kind: shape.Type) -> _Flag:
    """Through ``Annotated`` and ``| None`` to a type that a command line can spell."""
    match kind:
        case shape.Metadata(type=inner, extra_json_schema=schema):
            return replace(_unwrap(inner), help=(schema or {}).get("description", ""))
        case shape.UnionType(types=types):
            (inner,) = (one for one in types if not isinstance(one, shape.NoneType))
            return _unwrap(inner)
        case shape.VarTupleType(item_type=item):
            return replace(_unwrap(item), type=GenericAlias(list, (_unwrap(item).type,)))
        case shape.BoolType():
            return _Flag(bool)
        case shape.IntType():
            return _Flag(int, "N")
        case shape.FloatType():
            return _Flag(float, "X")
        case shape.StrType():
            return _Flag(str, "TEXT")
    return _Flag(Any)


def _parameter(name: str, flag: _Flag, default: Any, heading: str) -> inspect.Parameter:
    spelled = "--" + name.replace("_", "-")
    words = flag.help
    if flag.type is bool:
        spelled = f"{spelled}/--no-{spelled[2:]}"
        words += f" (default: {'yes' if default else 'no'})"
    elif get_origin(flag.type) is list:
        words += " (can be given again)"
    elif default not in (None, ""):
        words += f" (default: {default:g})" if isinstance(default, float) else f" (default: {default})"
    option = typer.Option(spelled, help=words, metavar=flag.metavar, show_default=False, rich_help_panel=heading)
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[flag.type | None, option]
    )


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read the config file {path}: {error.strerror}", param="config") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}", param="config") from None
