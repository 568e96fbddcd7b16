"""API key of a client, read from the file of ``--api-key-file``: flags are seen in process lists and stay in shell histories."""

from __future__ import annotations

from pathlib import Path

from octavo.errors import ConfigError


def read_api_key(file: str) -> str:
    """The first line that is not blank. Raises ``ConfigError`` for a file that is missing, not UTF-8, or blank."""
    try:
        lines = Path(file).read_text(encoding="utf-8").strip().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ConfigError(f"cannot read --api-key-file {file}: {reason}", param="api_key_file") from None
    if not lines:
        raise ConfigError(f"--api-key-file {file} is empty; expected the key in its first line", param="api_key_file")
    return lines[0].strip()
