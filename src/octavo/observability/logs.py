"""Logging set-up: one line a record on stderr, readable on a terminal, JSON where a machine reads it.

``OCTAVO_LOG`` sets the level (debug, info, warning, error; default info). Callers pass facts as ``extra={"facts": {...}}``
and never prompts, responses or keys: only ids, counts and durations are logged.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from typing import IO, Any

import msgspec

from octavo.errors import ConfigError

LEVELS = ("debug", "info", "warning", "error")


class FactsFormatter(logging.Formatter):
    """``time level logger message key=value ...`` or the same as one JSON object a line."""

    def __init__(self, *, as_json: bool) -> None:
        super().__init__()
        self._as_json = as_json

    def format(self, record: logging.LogRecord) -> str:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z"
        facts: dict[str, Any] = dict(getattr(record, "facts", {}))
        trace = self.formatException(record.exc_info) if record.exc_info else ""
        if self._as_json:
            line = {"time": stamp, "level": record.levelname.lower(), "logger": record.name}
            line |= {"message": record.getMessage(), **facts}
            if trace:
                line["trace"] = trace
            return msgspec.json.encode(line, enc_hook=str).decode()
        words = [stamp, record.levelname, record.name, record.getMessage(), *(f"{k}={v}" for k, v in facts.items())]
        # A value with a line break must not be able to forge a second line.
        text = " ".join(words).replace("\r", "\\r").replace("\n", "\\n")
        return f"{text}\n{trace}" if trace else text


def setup_logging(level: str | None = None, stream: IO[str] | None = None) -> None:
    """Configure the ``octavo`` and ``uvicorn`` loggers; ``level`` None reads ``OCTAVO_LOG``. Raises ``ConfigError``."""
    name = (level or os.environ.get("OCTAVO_LOG") or "info").lower()
    if name not in LEVELS:
        raise ConfigError(f"OCTAVO_LOG is {name!r}, expected one of {', '.join(LEVELS)}", param="OCTAVO_LOG")
    out = stream or sys.stderr
    handler = logging.StreamHandler(out)
    handler.setFormatter(FactsFormatter(as_json=not out.isatty()))
    for logger_name, logger_level in (("octavo", name), ("uvicorn", "warning")):
        logger = logging.getLogger(logger_name)
        logger.handlers[:] = [handler]
        logger.propagate = False
        logger.setLevel(logger_level.upper())
