"""Reader of the report's input files: results of runs, suites, comparisons of servers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import msgspec

from octavo.bench.peers import PEERS_SCHEMA_VERSION, PeersResult
from octavo.bench.result import load
from octavo.bench.suite import SUITE_SCHEMA_VERSION, SuiteResult
from octavo.bench.types import Run
from octavo.errors import ConfigError, ResultFileError

T = TypeVar("T", SuiteResult, PeersResult)


@dataclass(frozen=True)
class Results:
    """In the order in which the files came."""

    runs: tuple[Run, ...] = ()
    suites: tuple[SuiteResult, ...] = ()
    peers: tuple[PeersResult, ...] = ()


class _Head(msgspec.Struct):
    """Runs have no kind."""

    kind: str = ""
    schema_version: int = 0


def read(paths: Sequence[Path]) -> Results:
    """Each file once, even if it is named twice. Raises ``ConfigError`` for none,
    ``ResultFileError`` for one that is not a result."""
    if not paths:
        raise ConfigError("no result was given; octavo bench run --out FILE writes one", param="results")
    found = [_read(path) for path in {path.resolve(): path for path in paths}.values()]
    return Results(
        tuple(one for one in found if isinstance(one, Run)),
        tuple(one for one in found if isinstance(one, SuiteResult)),
        tuple(one for one in found if isinstance(one, PeersResult)),
    )


def _read(path: Path) -> Run | SuiteResult | PeersResult:
    try:
        data = path.read_bytes()
        head = msgspec.json.decode(data, type=_Head)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return load(path)  # which says what is wrong with it
    if head.kind == "suite":
        return _decode(path, data, head, (SuiteResult, SUITE_SCHEMA_VERSION))
    if head.kind == "peers":
        return _decode(path, data, head, (PeersResult, PEERS_SCHEMA_VERSION))
    return load(path)


def _decode(path: Path, data: bytes, head: _Head, expected: tuple[type[T], int]) -> T:
    kind, version = expected
    if head.schema_version != version:
        raise ResultFileError(
            f"{path} is a {head.kind} result of schema version {head.schema_version}; this octavo reads {version}: read it with "
            "the octavo that wrote it (octavo_version in the file), or measure again"
        )
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.ValidationError as error:
        raise ResultFileError(f"{path} is not a valid {head.kind} result: {error}; measure again") from None
