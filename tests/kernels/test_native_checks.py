"""Bounds checks of the native debug build: kernels called directly with corrupt block tables and ranges must abort."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from support.native_library import needs_native

pytestmark = [
    needs_native,
    pytest.mark.skipif(
        "libasan" not in os.environ.get("LD_PRELOAD", ""), reason="the debug build has the checks: make sanitize"
    ),
]
ATTEND = """
import sys
import numpy as np
from support.native_cache import Cache, attend
from octavo.kernels.native.operations import operations
from octavo.kernels.native.structs import AttentionShape, KvType

ops, shape = operations(), AttentionShape(2, 1, 8, 0, 1.0, 0.0)
cache, x = Cache(KvType.F32, 1, 8, 16, 40), np.ones((40, 2, 8), np.float32)
cache.write(ops, x[:, :1].copy(), x[:, :1].copy())
attend(ops, shape, cache, x, 30, 10)
print("sound", flush=True)
cache.table[1] = {block}
{act}
print("not noticed")
"""
READ = "attend(ops, shape, cache, x, 30, 10)"
WRITE = "cache.write(ops, x[:, :1].copy(), x[:, :1].copy())"


@pytest.mark.parametrize("act", [READ, WRITE], ids=["read", "write"])
@pytest.mark.parametrize("block", ["cache.num_blocks", "-1", "2**31 - 1", "-(2**31)"])
def test_a_corrupted_block_table_aborts(act: str, block: str) -> None:
    here = str(Path(__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((os.environ.get("PYTHONPATH", ""), here))}
    program = ATTEND.format(block=block, act=act)
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert done.stdout == "sound\n", done.stdout + done.stderr
    assert "check failed: " in done.stderr and "block < s.num_blocks" in done.stderr
    assert done.returncode == -signal.SIGABRT
