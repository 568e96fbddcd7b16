"""Record of the slow checks' last full pass: by check, the hash of the sources that passed; ``verified.json`` is committed.

``make test`` runs such a check in full only when its sources have changed since; ``make test-all`` always, and writes the record.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path

from octavo.kernels.native import build

RECORD = Path(__file__).with_suffix(".json")
KERNELS = build.KERNELS


def native_hash() -> str:
    """Of the C++ sources and the flags that they are compiled with."""
    return build.source_hash()


def gpu_hash() -> str:
    """Of everything in ``kernels/`` but the native kernels, and of the two compilers' versions."""
    files = (path for path in KERNELS.rglob("*") if path.suffix in (".py", ".cu", ".cuh", ".json"))
    versions = [f"{name} {version(name)}" for name in ("triton", "nvidia-cuda-nvrtc")]
    return _hash((path for path in files if "native" not in path.relative_to(KERNELS).parts), versions)


def _hash(paths: Iterable[Path], words: Iterable[str]) -> str:
    digest = hashlib.sha256("\n".join(words).encode())
    for path in sorted(paths):
        content = path.read_bytes()
        digest.update(f"\n{path.relative_to(KERNELS).as_posix()} {len(content)}\n".encode() + content)
    return digest.hexdigest()[:16]


def is_verified(check: str, sources: str) -> bool:
    """Whether ``check`` last passed in full on the sources with this hash."""
    return bool(json.loads(RECORD.read_text()).get(check) == sources)


def record(check: str, sources: str) -> None:
    """``check`` has passed in full."""
    passed = json.loads(RECORD.read_text()) | {check: sources}
    RECORD.write_text(json.dumps(passed, indent=2, sort_keys=True) + "\n")
