"""Limits of the machine: copy bandwidth and matmul FLOP/s of each dtype, measured on random data, not read from a data sheet.

A GPU runs faster on zeros than on data, and slower when it is hot: the limits are measured in the run that they judge.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from octavo.kernels.gpu.lab.timing import measure
from octavo.kernels.operation import Benchmark


@dataclass(frozen=True, slots=True)
class Limits:
    """``copy`` in bytes/s, read and written both counted; matmul rates in operations/s. A rate of 0 could not be measured."""

    device: str
    copy: float = 0.0
    fp32: float = 0.0
    bf16: float = 0.0
    fp8: float = 0.0
    int8: float = 0.0
    errors: dict[str, str] = field(default_factory=dict)

    def floor_s(self, benchmark: Benchmark) -> float:
        """No implementation can be quicker: bytes over bandwidth or operations over rate, the longer; 0 if not known."""
        times = [benchmark.moved_bytes / self.copy if self.copy else 0.0]
        if benchmark.limit != "copy":
            rate: float = getattr(self, benchmark.limit)
            times.append(benchmark.operations / rate if rate else 0.0)
        return max(times)


def device_name(device: torch.device) -> str:
    """``NVIDIA H200``, or ``cpu``."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def measure_limits(device: torch.device, size: int = 8192, copy_bytes: int = 4 << 30) -> Limits:
    """``size``: of the square matrices; ``copy_bytes``: of the tensor that is copied. Some seconds on a GPU."""
    rates: dict[str, float] = {}
    errors: dict[str, str] = {}
    for name, prepare in _PRODUCTS.items():
        try:
            call = prepare(size, device)
        except Exception as error:  # this type is not for this device
            errors[name] = str(error).splitlines()[0]
            continue
        timed = measure({name: call}, device)
        errors |= timed.errors
        if name in timed.times:
            rates[name] = 2 * size**3 / timed.times[name].median_s
    return Limits(device_name(device), copy=_copy_rate(copy_bytes, device), errors=errors, **rates)


def read_limits(out: Path, device: str) -> Limits:
    """What the bench part of a run has measured into ``out``; all limits unknown if it has not."""
    file = out / "bench.json"
    known = json.loads(file.read_text())["results"].get("limits", {}) if file.exists() else {}
    return Limits(**known["limits"]) if "limits" in known else Limits(device)


def _copy_rate(num_bytes: int, device: torch.device) -> float:
    """Bytes read and bytes written, a second."""
    source = torch.empty(num_bytes // 8, dtype=torch.int64, device=device).random_()
    target = torch.empty_like(source)
    return 2 * num_bytes / measure({"copy": lambda: target.copy_(source)}, device).times["copy"].median_s


def _normal(size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.randn((size, size), device=device).to(dtype)


def _fp32(size: int, device: torch.device) -> Callable[[], Any]:
    """TF32 is off unless somebody switched it on: torch's default."""
    a, b = (_normal(size, torch.float32, device) for _ in range(2))
    return lambda: torch.mm(a, b)


def _bf16(size: int, device: torch.device) -> Callable[[], Any]:
    a, b = (_normal(size, torch.bfloat16, device) for _ in range(2))
    return lambda: torch.mm(a, b)


def _fp8(size: int, device: torch.device) -> Callable[[], Any]:
    """One scale a tensor; the second matrix is stored by columns, as cuBLAS wants it."""
    a, b = (_normal(size, torch.float8_e4m3fn, device) for _ in range(2))
    one = torch.ones((), device=device)
    return lambda: torch._scaled_mm(a, b.t(), one, one, out_dtype=torch.bfloat16)


def _int8(size: int, device: torch.device) -> Callable[[], Any]:
    a, b = (torch.randint(-128, 128, (size, size), dtype=torch.int8, device=device) for _ in range(2))
    return lambda: torch._int_mm(a, b.t())


_PRODUCTS = {"fp32": _fp32, "bf16": _bf16, "fp8": _fp8, "int8": _int8}
