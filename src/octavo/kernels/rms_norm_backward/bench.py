"""As ``rms_norm``; two tensors are read and one is written. The baseline runs forward as well: it has to keep something."""

from __future__ import annotations

from functools import partial

from torch import Tensor

from octavo.kernels.rms_norm.bench import benchmarks, derivatives, rms_norm


def _eager(grad: Tensor, x: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, ...]:
    return derivatives(partial(rms_norm, eps=eps), {"x": x, "weight": weight}, (grad,))


BENCHMARKS = benchmarks(("grad", "x", "weight"), 3, _eager, reach=0.85)
