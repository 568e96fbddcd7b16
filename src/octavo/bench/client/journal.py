"""The journal of a run: one JSON line per ended request, on disk while the run goes on.

The first line is the ``JournalHead``. What a killed process leaves behind can be read: a torn last line is dropped.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from octavo.bench.types import SCHEMA_VERSION, RequestRecord
from octavo.errors import BenchError, ConfigError


class JournalHead(msgspec.Struct, kw_only=True):
    octavo_bench_journal: int = SCHEMA_VERSION
    url: str
    model: str
    workload: str
    arrivals: str
    seed: int
    created: str


class Journal:
    """``add`` only remembers; ``flush`` writes. With no path it does nothing."""

    def __init__(self, path: str | None, head: JournalHead) -> None:
        self._records: list[RequestRecord] = []
        self._encode = msgspec.json.Encoder().encode
        try:
            self._file = None if path is None else Path(path).open("wb")  # noqa: SIM115 - closed by __exit__
        except OSError as error:
            raise ConfigError(f"cannot write the journal {path}: {error.strerror}") from None
        self._write(self._encode(head) + b"\n")

    def add(self, record: RequestRecord) -> None:
        if self._file is not None:
            self._records.append(record)

    def flush(self) -> None:
        """Hand it to the operating system: it then survives the death of this process. Raises ``BenchError``."""
        if self._records:
            data = b"".join(self._encode(record) + b"\n" for record in self._records)
            self._records.clear()
            self._write(data)

    def _write(self, data: bytes) -> None:
        if self._file is None:
            return
        try:
            self._file.write(data)
            self._file.flush()
        except OSError as error:
            broken, self._file = self._file, None
            with suppress(OSError):  # what is still in its buffer cannot be written either
                broken.close()
            raise BenchError(f"cannot write the journal {broken.name}: {error.strerror}") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.flush()
        if self._file is not None:
            self._file.close()


def read_journal(path: str | Path) -> tuple[JournalHead, list[RequestRecord]]:
    """Raises ``BenchError`` if it is not one, or damaged elsewhere than in its last line."""
    try:
        first, *lines = Path(path).read_bytes().split(b"\n")
        head = msgspec.json.decode(first, type=JournalHead)
    except OSError as error:
        raise BenchError(f"cannot read the journal {path}: {error.strerror}") from None
    except msgspec.DecodeError as error:
        raise BenchError(f"{path} is not a journal of octavo bench: {error}") from None
    decoder = msgspec.json.Decoder(RequestRecord)
    records = []
    for number, line in enumerate(lines[:-1], 2):  # what follows the last line break is empty or torn
        try:
            records.append(decoder.decode(line))
        except msgspec.DecodeError as error:
            raise BenchError(f"{path}, line {number}: {error}") from None
    return head, records
