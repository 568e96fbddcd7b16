"""Tensor properties that CUDA kernels are compiled for: the C++ name of a dtype, 16-byte alignment."""

from __future__ import annotations

import torch
from torch import Tensor


def type_name(dtype: torch.dtype) -> str:
    """As ``cuda/octavo.cuh`` calls it: torch's own name."""
    return str(dtype).removeprefix("torch.")


def aligned(*tensors: Tensor) -> bool:
    """Every one begins at a multiple of 16 bytes. Torch's allocations do; a view into one may not."""
    return all(one.data_ptr() % 16 == 0 for one in tensors)


def rows_aligned(size: int, *tensors: Tensor) -> bool:
    """Every row of ``size`` elements, densely stored, begins at a multiple of 16 bytes."""
    return aligned(*tensors) and all(size * one.element_size() % 16 == 0 for one in tensors)
