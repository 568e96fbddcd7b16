"""Recorded traces, from the package or a file: arrival times, lengths, shared prompt blocks.

The format is told from the first line; any file may be gzipped. Rows must be in order of time. Formats:

- Azure LLM inference traces (Patel et al., Splitwise, ISCA 2024): CSV ``TIMESTAMP,ContextTokens,GeneratedTokens``.
- Mooncake (Qin et al., FAST 2025): JSONL ``timestamp`` (ms), ``input_length``, ``output_length``, ``hash_ids``: one id
  for every 512 prompt tokens, the same id for the same prefix.
- Plain: CSV or JSONL ``arrival_s,input_length,output_length``.
- Tokenised requests as LLMServingSim reads them: JSONL ``arrival_time_ns``, ``input_toks``, ``output_toks``.
"""

from __future__ import annotations

import csv
import difflib
import gzip
import io
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any

import msgspec

from octavo.errors import BenchError, ConfigError

BLOCK_TOKENS = 512  # prompt tokens a Mooncake hash stands for

BUNDLED: Mapping[str, str] = MappingProxyType(
    {
        "azure-code": "azure_code.csv.gz",
        "azure-conv": "azure_conv.csv.gz",
        "mooncake-conv": "mooncake_conv.jsonl.gz",
        "mooncake-synthetic": "mooncake_synthetic.jsonl.gz",
        "sharegpt": "sharegpt.jsonl.gz",
    }
)


class TraceRow(msgspec.Struct, frozen=True):
    """One recorded request; ``arrival_s`` counts from the trace's first row."""

    arrival_s: float
    num_prompt_tokens: int
    num_output_tokens: int
    hash_ids: tuple[int, ...] = ()


class TraceFormat(msgspec.Struct, frozen=True):
    """Where the three facts stand in a row, and how its time becomes seconds."""

    time: str
    prompt: str
    output: str
    seconds: Callable[[Any], float]
    time_words: str

    @property
    def columns(self) -> tuple[str, str, str]:
        return self.time, self.prompt, self.output

    @property
    def expected(self) -> str:
        return f"{self.time} ({self.time_words}), {self.prompt} and {self.output} (whole numbers)"


def _calendar(value: Any) -> float:
    moment = datetime.fromisoformat(value)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


FORMATS = (
    TraceFormat("TIMESTAMP", "ContextTokens", "GeneratedTokens", _calendar, "date and time"),
    TraceFormat("timestamp", "input_length", "output_length", lambda value: float(value) / 1e3, "milliseconds"),
    TraceFormat("arrival_s", "input_length", "output_length", float, "seconds"),
    TraceFormat("arrival_time_ns", "input_toks", "output_toks", lambda value: float(value) / 1e9, "nanoseconds"),
)


def open_trace(source: str) -> tuple[IO[bytes], str]:
    """A bundled sample by name, or a file by path. Raises ``ConfigError`` naming the samples."""
    if source in BUNDLED:
        content = resources.files("octavo.bench").joinpath("data", BUNDLED[source]).read_bytes()
        return _unzipped(io.BytesIO(content)), f"{source} (sample)"
    path = Path(source).expanduser()
    if not path.is_file():
        near = difflib.get_close_matches(source, BUNDLED, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ConfigError(
            f"no trace {source!r}: it is no file; {hint}samples in the package: {', '.join(BUNDLED)}", param="workload"
        )
    try:
        return _unzipped(path.open("rb")), str(path)
    except OSError as error:
        raise ConfigError(f"trace {source!r} cannot be read: {error}", param="workload") from None


def _unzipped(stream: IO[bytes]) -> IO[bytes]:
    zipped = stream.read(2) == b"\x1f\x8b"
    stream.seek(0)
    return _Unzipped(stream) if zipped else stream  # type: ignore[return-value]


class _Unzipped(gzip.GzipFile):
    """Closes the file beneath as well, which ``GzipFile`` leaves to whoever opened it."""

    def __init__(self, beneath: IO[bytes]) -> None:
        self._beneath = beneath
        super().__init__(fileobj=beneath)

    def close(self) -> None:
        super().close()
        self._beneath.close()


def read_trace(source: str) -> Iterator[TraceRow]:
    """Row by row; only what is asked for is read. Raises ``BenchError`` with file and line for a malformed or unordered row."""
    stream, name = open_trace(source)
    with stream, io.TextIOWrapper(stream, encoding="utf-8-sig", newline="") as lines:
        try:
            yield from _rows(lines, name)
        except (OSError, EOFError, UnicodeDecodeError) as error:
            raise BenchError(f"{name}: not a readable text or gzip file: {error}") from None


def _rows(lines: io.TextIOWrapper, name: str) -> Iterator[TraceRow]:
    form: TraceFormat | None = None
    first_s, last_s, last_line = 0.0, 0.0, 0
    for number, fields in _records(lines, name):
        if form is None:
            form = _format_of(fields, f"{name}:{number}")
        row = _row(fields, form, f"{name}:{number}")
        if last_line == 0:
            first_s = last_s = row.arrival_s
        if row.arrival_s < last_s:
            raise BenchError(
                f"{name}:{number}: out of order: {form.time} is {last_s - row.arrival_s:g} s before that of line "
                f"{last_line}; sort the file by time"
            )
        last_s, last_line = row.arrival_s, number
        yield msgspec.structs.replace(row, arrival_s=row.arrival_s - first_s)
    if last_line == 0:
        raise BenchError(f"{name}: no request in it; expected one of: {_known_formats()}")


def _records(lines: Iterable[str], name: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number, fields) of each row: JSONL if the first line opens a brace, else CSV with a header."""
    header: list[str] = []
    is_json: bool | None = None
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        if is_json is None:
            is_json = line.lstrip().startswith("{")
            if not is_json:
                header = [column.strip() for column in next(csv.reader([line]))]
                _format_of(dict.fromkeys(header), f"{name}:{number}")
                continue
        yield number, _json(line, f"{name}:{number}") if is_json else _csv(line, header, f"{name}:{number}")


def _json(line: str, where: str) -> dict[str, Any]:
    try:
        fields = msgspec.json.decode(line)
    except msgspec.DecodeError as error:
        raise BenchError(
            f"{where}: not JSON ({error}); expected one object a line, got {line.strip()[:60]!r}"
        ) from None
    if not isinstance(fields, dict):
        raise BenchError(f"{where}: expected one JSON object a line, got {line.strip()[:60]!r}")
    return fields


def _csv(line: str, header: list[str], where: str) -> dict[str, Any]:
    try:
        values = next(csv.reader([line.rstrip("\r\n")], strict=True))
    except csv.Error as error:
        raise BenchError(f"{where}: not a CSV line ({error}): {line.strip()[:60]!r}") from None
    if len(values) != len(header):
        raise BenchError(
            f"{where}: {len(values)} values, expected {len(header)} ({','.join(header)}); got {line.strip()[:60]!r}"
        )
    return dict(zip(header, values, strict=True))


def _format_of(fields: Mapping[str, Any], where: str) -> TraceFormat:
    for form in FORMATS:
        if all(column in fields for column in form.columns):
            return form
    shown = ", ".join(list(fields)[:8])
    raise BenchError(f"{where}: unknown trace format with {shown}; expected one of: {_known_formats()}")


def _known_formats() -> str:
    return "; ".join(form.expected for form in FORMATS)


def _row(fields: dict[str, Any], form: TraceFormat, where: str) -> TraceRow:
    missing = [column for column in form.columns if column not in fields]
    if missing:
        raise BenchError(f"{where}: no {missing[0]!r}; expected {form.expected}")
    try:
        if isinstance(fields[form.time], bool):
            raise ValueError
        arrival_s = form.seconds(fields[form.time])
        if not abs(arrival_s) < float("inf"):
            raise ValueError
    except (ValueError, TypeError, OverflowError):
        raise BenchError(f"{where}: {form.time} = {fields[form.time]!r}: expected {form.time_words}") from None
    num_prompt = _count(fields[form.prompt], form.prompt, where)
    num_output = _count(fields[form.output], form.output, where)
    return TraceRow(arrival_s, num_prompt, num_output, _hash_ids(fields.get("hash_ids"), num_prompt, where))


def _count(value: Any, column: str, where: str) -> int:
    """A token count; 0 becomes 1, because a request without prompt or output is no request."""
    text = str(value).strip()
    if isinstance(value, bool) or not (text.isascii() and text.isdigit() and len(text) <= 9):
        raise BenchError(f"{where}: {column} = {value!r}: expected a whole number of tokens")
    return max(1, int(text))


def _hash_ids(value: Any, num_prompt: int, where: str) -> tuple[int, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or not all(type(one) is int and one >= 0 for one in value):
        raise BenchError(f"{where}: hash_ids = {str(value)[:60]}: expected a list of whole numbers")
    needed = -(-num_prompt // BLOCK_TOKENS)
    if len(value) != needed:
        raise BenchError(
            f"{where}: {len(value)} hash_ids for {num_prompt} prompt tokens; expected {needed}, one for every {BLOCK_TOKENS}"
        )
    return tuple(value)
