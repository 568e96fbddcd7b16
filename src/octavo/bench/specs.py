"""Parser of the ``--workload`` and ``--arrivals`` specs: ``name:key=value,key=value`` to a frozen struct.

Values are checked by the struct's own types and bounds; a list is written with semicolons (``rates=1;2;4``). A struct that
names a ``POSITIONAL`` field takes one bare word first (``trace:azure-code,scale=0.5``).
"""

from __future__ import annotations

import difflib
import keyword
import math
import re
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from octavo.config import from_mapping
from octavo.errors import ConfigError

T = TypeVar("T", bound=msgspec.Struct)


def build(text: str, registry: Mapping[str, type[T]], what: str) -> T:
    """The registered struct that ``text`` describes. Raises ``ConfigError`` naming the nearest known name or parameter."""
    name, _, rest = text.strip().partition(":")
    name = name.strip()
    if name not in registry:
        near = difflib.get_close_matches(name, registry, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ConfigError(f"unknown {what} {name!r}; {hint}known: {', '.join(registry)}", param=what)
    kind = registry[name]
    try:
        struct = from_mapping(kind, _values(rest, kind, name))
        for key in kind.__struct_fields__:
            if isinstance(value := getattr(struct, key), float) and not math.isfinite(value):
                raise ConfigError(f"{key} = {value}: expected a finite number")
    except ConfigError as error:
        message = error.message
        for key in filter(_is_keyword_field, kind.__struct_fields__):
            message = message.replace(key, _shown(key))
        raise ConfigError(f"{what} {name!r}: {message}", param=what) from None
    return struct


def _values(text: str, kind: type[msgspec.Struct], name: str) -> dict[str, Any]:
    values: dict[str, Any] = {}
    positional = getattr(kind, "POSITIONAL", None)
    lists = {field.name for field in msgspec.structs.fields(kind) if _is_list(field.type)}
    for number, item in enumerate(text.split(",") if text.strip() else []):
        key, equals, value = item.partition("=")
        if number == 0 and positional and item.partition("=")[0].strip() not in kind.__struct_fields__:
            key, equals, value = positional, "=", item  # a path may hold an equals sign
        key, value = key.strip(), value.strip()
        key = f"{key}_" if keyword.iskeyword(key) else key
        if not equals or not value:
            raise ConfigError(f"{item!r} is not key=value; write it as {name}:key=value,key=value")
        if key in values:
            raise ConfigError(f"{key!r} is given twice")
        values[key] = value.split(";") if key in lists else value
    return values


def _is_keyword_field(key: str) -> bool:
    """``from`` cannot be a field's name in Python: the field is ``from_``, the parameter ``from``."""
    return key.endswith("_") and keyword.iskeyword(key[:-1])


def _shown(key: str) -> str:
    return key[:-1] if _is_keyword_field(key) else key


def _is_list(kind: Any) -> bool:
    if typing.get_origin(kind) is typing.Annotated:
        kind = typing.get_args(kind)[0]
    return typing.get_origin(kind) in (list, tuple)


def canonical(name: str, struct: msgspec.Struct) -> str:
    """The spec with every parameter written out, defaults included: what a result keeps, so that defaults may change."""
    items = []
    for key in struct.__struct_fields__:
        value = getattr(struct, key)
        items.append(f"{_shown(key)}={';'.join(map(_plain, value)) if isinstance(value, tuple) else _plain(value)}")
    return f"{name}:{','.join(items)}" if items else name


def _plain(value: Any) -> str:
    return repr(value).removesuffix(".0") if isinstance(value, float) else str(value)


def describe(registry: Mapping[str, type[msgspec.Struct]]) -> dict[str, str]:
    """For ``--help`` and the documentation: name -> first sentence of its docstring and its parameters with their defaults."""
    lines = {}
    for name, kind in registry.items():
        fields = msgspec.structs.fields(kind)
        parameters = ", ".join(
            _shown(field.name) if field.required else f"{_shown(field.name)}={_shown_default(field.default)}"
            for field in fields
        )
        summary = _first_sentence(kind.__doc__ or "")
        lines[name] = f"{summary} Parameters: {parameters}." if parameters else summary
    return lines


def _first_sentence(text: str) -> str:
    paragraph = " ".join(text.strip().split("\n\n")[0].split()).replace("``", "")
    return re.split(r"(?<=[.:])\s", paragraph)[0].rstrip(".:") + "."


def _shown_default(value: Any) -> str:
    return ";".join(map(str, value)) if isinstance(value, tuple) else str(value)
