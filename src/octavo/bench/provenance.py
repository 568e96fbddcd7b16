"""Provenance of a result: the client's machine, the commit of the folder it ran in, the command."""

from __future__ import annotations

import platform
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from octavo import __version__
from octavo.hardware import Hardware, detect

GIT_TIMEOUT_S = 10.0


def machine_facts(hardware: Hardware | None = None) -> dict[str, Any]:
    """The machine of the *client*, and of the server too if it runs beside it. No host or user names."""
    found = hardware or detect()
    return {
        "cpu": found.cpu_name,
        "num_cores": found.num_cores,
        "num_physical_cores": found.num_physical_cores,
        "memory_bytes": found.memory_bytes,
        "os": f"{platform.system()} {platform.release()}".strip(),
        "architecture": platform.machine(),
        "python": platform.python_version(),
        "gpus": [{"name": gpu.name, "memory_bytes": gpu.memory_bytes} for gpu in found.gpus],
    }


def commit(folder: Path | None = None) -> str:
    """``git describe`` of the repository that holds ``folder`` (default: the current one), with ``-dirty`` if something in it
    was changed; empty where there is no repository or no git."""
    git = shutil.which("git")
    if git is None:
        return ""
    command = [git, "describe", "--always", "--tags", "--dirty", "--abbrev=12"]
    try:
        done = subprocess.run(  # noqa: S603 - a fixed command, no shell
            command, cwd=folder, capture_output=True, text=True, timeout=GIT_TIMEOUT_S, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()


def origin(arguments: Sequence[str]) -> dict[str, Any]:
    """What every result file says of where it comes from; ``arguments`` of the command line."""
    return {
        "created": created_now(),
        "command": command_line(arguments),
        "commit": commit(),
        "octavo_version": __version__,
        "machine": machine_facts(),
    }


def created_now() -> str:
    """ISO 8601, UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def command_line(arguments: Sequence[str]) -> str:
    """As it can be typed again, with the value of ``--api-key`` left out: results are made to be passed on."""
    shown: list[str] = []
    for word in arguments:
        if shown and shown[-1] == "--api-key":
            shown.append("***")
        else:
            shown.append("--api-key=***" if word.startswith("--api-key=") else word)
    return shlex.join(["octavo", *shown]).replace("'***'", "***").replace("'--api-key=***'", "--api-key=***")
