"""The result file of a run: one JSON file with a published schema, written whole or not at all; requests as CSV or parquet."""

from __future__ import annotations

import csv
import io
import os
import tempfile
from collections.abc import Callable, Iterable, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import msgspec

from octavo import __version__
from octavo.bench.types import SCHEMA_VERSION, RequestRecord, Run
from octavo.errors import ConfigError, ResultFileError
from octavo.extras import require

SCHEMA_FILE = f"schema/result-v{SCHEMA_VERSION}.json"
ROW_COLUMNS = (
    "run",
    "index",
    "tenant",
    "service_class",
    "outcome",
    "status",
    "error",
    "finish_reason",
    "intended_s",
    "sent_s",
    "first_token_s",
    "end_s",
    "client_lag_s",
    "ttft_s",
    "uncorrected_ttft_s",
    "tpot_s",
    "e2e_s",
    "uncorrected_e2e_s",
    "prompt_tokens",
    "output_tokens",
    "cached_tokens",
)


def save(run: Run, path: Path) -> None:
    """Write the result file, one line per request; folders on the way are made. A crash leaves the old file or the new one,
    never half of one."""
    head = msgspec.json.format(msgspec.json.encode(msgspec.structs.replace(run, records=[])), indent=1)
    start, empty, end = head.rpartition(b"[]")
    assert start.endswith(b'"records": ') and empty, "records are the last field of a run"
    lines = b",\n".join(b"  " + msgspec.json.encode(record) for record in run.records)
    write_whole(path, start + b"[\n" + lines + b"\n ]" + end + b"\n")


def load(path: Path) -> Run:
    """Read a result file. Raises ``ResultFileError``: not there, not a result, of another schema version, damaged."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ResultFileError(f"cannot read {path}: {error.strerror}") from None
    try:
        head = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ResultFileError(
            f"{path} is not a result of octavo bench: it is not JSON ({error}); octavo bench run --out FILE writes one"
        ) from None
    _check_version(path, head)
    try:
        return msgspec.json.decode(data, type=Run)
    except msgspec.ValidationError as error:
        raise ResultFileError(
            f"{path} is not a valid result of schema version {SCHEMA_VERSION}: {error}; octavo bench schema prints the schema"
        ) from None


def _check_version(path: Path, head: Any) -> None:
    version = head.get("schema_version") if isinstance(head, dict) else None
    if not isinstance(version, int) or isinstance(version, bool):
        raise ResultFileError(
            f"{path} is not a result of octavo bench: it has no schema_version; octavo bench run --out FILE writes one"
        )
    if version > SCHEMA_VERSION:
        raise ResultFileError(
            f"{path} has schema version {version}; octavo {__version__} reads {SCHEMA_VERSION}: update octavo "
            "(pip install --upgrade octavo)"
        )
    if version < SCHEMA_VERSION:
        raise ResultFileError(
            f"{path} has schema version {version}; octavo {__version__} reads {SCHEMA_VERSION}: read it with the octavo "
            "that wrote it (octavo_version in the file), or measure again"
        )


def schema() -> dict[str, Any]:
    """The JSON Schema of a result file, made from the types in ``model.py``."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"Result of octavo bench, schema version {SCHEMA_VERSION}",
        **msgspec.json.schema(Run),
    }


def published_schema() -> str:
    """The text of the schema file in the package."""
    return resources.files("octavo.bench").joinpath(SCHEMA_FILE).read_text(encoding="utf-8")


def write_rows(runs: Sequence[Run], path: Path) -> None:
    """One row per request; the file's ending says the format, ``.csv`` or ``.parquet`` (which adds the chunks as lists)."""
    check_rows(path)
    write: Callable[[Sequence[Run]], bytes] = _csv if path.suffix.lower() == ".csv" else _parquet
    write_whole(path, write(runs))


def check_rows(path: Path) -> None:
    """Before anything is measured: raises ``ConfigError`` for a file that rows cannot be written to,
    ``MissingPackageError`` where what writes them is not installed."""
    if path.suffix.lower() not in (".csv", ".parquet"):
        raise ConfigError(f"rows go to a .csv or a .parquet file, not to {path}", param="rows")
    if path.suffix.lower() == ".parquet":
        require("pyarrow", "rows as .parquet (not as .csv) need")


def row(run: str, record: RequestRecord) -> dict[str, Any]:
    """A request as a flat row; times in seconds since the run's start, durations in seconds."""
    names = (name for name in ROW_COLUMNS if name != "run")
    return {"run": run, **{name: getattr(record, name) for name in names}, "outcome": record.outcome.value}


def write_whole(path: Path, data: bytes) -> None:
    """All of it or nothing: into a file beside ``path``, to the disk, then renamed over it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o666 & ~_umask())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _umask() -> int:
    """mkstemp makes files that only their owner reads; a result is as readable as any other file."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def _rows(runs: Iterable[Run]) -> list[dict[str, Any]]:
    return [row(run.name, record) for run in runs for record in run.records]


def _csv(runs: Sequence[Run]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, ROW_COLUMNS)
    writer.writeheader()
    writer.writerows(_rows(runs))
    return text.getvalue().encode()


def _parquet(runs: Sequence[Run]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {name: [one[name] for one in _rows(runs)] for name in ROW_COLUMNS}
    records = [record for run in runs for record in run.records]
    types = {name: pa.float64() for name in ROW_COLUMNS if name.endswith("_s")}
    types |= {name: pa.int64() for name in ("index", "status", "prompt_tokens", "output_tokens", "cached_tokens")}
    arrays = {name: pa.array(values, types.get(name, pa.string())) for name, values in columns.items()}
    arrays["chunk_s"] = pa.array([record.chunk_s for record in records], pa.list_(pa.float64()))
    arrays["chunk_tokens"] = pa.array([record.chunk_tokens for record in records], pa.list_(pa.int64()))
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(arrays), sink, compression="zstd")
    return bytes(sink.getvalue())
