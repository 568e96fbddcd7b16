"""Elements of the report page as plain data: sections, tables, pictures. The template alone turns them into HTML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TypeVar

from octavo.bench.plots import Plot, encode
from octavo.bench.suite_table import NOTHING, number
from octavo.bench.types import Interval

S = TypeVar("S")


@dataclass(frozen=True)
class Bounded:
    """A cell with a value and, smaller, its interval."""

    value: str
    bounds: str


Cell = str | Bounded


@dataclass(frozen=True)
class Table:
    title: str
    headings: tuple[str, ...]
    rows: Sequence[tuple[Cell, ...]]
    num_text: int = 1  # columns that hold words, at the left
    links: tuple[str, ...] = ()  # the section that the first cell of each row leads to


@dataclass(frozen=True)
class Picture:
    """``files``: the bytes of the plot in each format; "svg" is always there."""

    key: str  # of its section and its kind: unlike any other on the page, and the name of its file
    caption: str
    files: Mapping[str, bytes]


@dataclass(frozen=True)
class Pen:
    """Draws plots for the page, and in the formats that are wanted as files."""

    forms: tuple[str, ...] = ("svg",)

    def draw(self, key: str, kinds: Sequence[Plot[S]], subject: S) -> tuple[Picture, ...]:
        """Those that have something to show."""
        return tuple(
            Picture(
                f"{key}-{kind.name}",
                kind.caption,
                MappingProxyType({form: encode(figure, form) for form in dict.fromkeys(("svg", *self.forms))}),
            )
            for kind in kinds
            if (figure := kind(subject)) is not None
        )


@dataclass(frozen=True)
class Section:
    key: str  # anchor
    title: str
    verdict: str = ""  # "VALID"; "INVALID: ..."
    bad: bool = False  # the verdict
    doubts: Sequence[str] = ()
    facts: Sequence[tuple[str, str]] = ()
    provenance: Sequence[tuple[str, str]] = ()
    tables: Sequence[Table] = ()
    notes: Sequence[str] = ()
    pictures: Sequence[Picture] = ()
    formulas: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    folded: bool = False  # one of many


def bounded(interval: Interval, scale: float = 1.0) -> Cell:
    """``12.3`` and ``[11.9, 12.8]``."""
    if interval.value is None:
        return NOTHING
    if interval.low is None or interval.high is None:
        return number(interval.value * scale)
    return Bounded(number(interval.value * scale), f"[{number(interval.low * scale)}, {number(interval.high * scale)}]")


def machine_text(machine: Mapping[str, object]) -> str:
    """``AMD EPYC, 16 cores, 64.0 GiB, Linux 6.1``, of ``provenance.machine_facts``; leaves out what a file does not say."""
    gpus = machine.get("gpus")
    memory = machine.get("memory_bytes")
    parts = [
        machine.get("cpu"),
        f"{machine['num_cores']} cores" if "num_cores" in machine else None,
        f"{memory / 2**30:.1f} GiB" if isinstance(memory, int | float) else None,
        *(gpu.get("name") for gpu in (gpus if isinstance(gpus, list) else []) if isinstance(gpu, dict)),
        machine.get("os"),
        machine.get("architecture"),
        f"Python {machine['python']}" if "python" in machine else None,
    ]
    return ", ".join(str(part) for part in parts if part) or "unknown"
