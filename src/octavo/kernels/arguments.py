"""Argument-check helpers of operations: dtype, shape, device, contiguity, before anything is launched.

``TypeError`` for what the argument is (not a tensor, the wrong dtype), ``ValueError`` for its shape, layout, device or value.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

FLOATS = (torch.float32, torch.float16, torch.bfloat16)


def expect_tensor(name: str, value: Any, dtypes: Sequence[torch.dtype] = FLOATS, contiguous: bool = True) -> Tensor:
    """A tensor of one of ``dtypes``, whose last dimension (all, if ``contiguous``) lies dense in memory."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{name}: a tensor is expected, not {type(value).__name__}")
    if value.dtype not in dtypes:
        known = ", ".join(_plain(one) for one in dtypes)
        raise TypeError(f"{name}: dtype {_plain(value.dtype)} is not supported; expected: {known}")
    if contiguous and not value.is_contiguous():
        raise ValueError(
            f"{name}: strides {tuple(value.stride())} of shape {tuple(value.shape)} are not contiguous; call .contiguous()"
        )
    return value


def expect_shape(name: str, value: Tensor, shape: Sequence[int | None], words: str = "") -> None:
    """``None`` in ``shape``: any size. ``words``: what the sizes mean, for the message."""
    fits = value.dim() == len(shape) and all(b is None or a == b for a, b in zip(value.shape, shape, strict=True))
    if not fits:
        expected = "[" + ", ".join("*" if size is None else str(size) for size in shape) + "]"
        raise ValueError(f"{name}: shape {list(value.shape)} came, {expected} was expected{words and ': '}{words}")


def expect_same(name: str, value: Tensor, other_name: str, other: Tensor, dtype: bool = True) -> None:
    """On the same device as ``other``, and of its dtype."""
    if value.device != other.device:
        raise ValueError(f"{name}: on {value.device}, but {other_name} is on {other.device}; move one of them")
    if dtype and value.dtype != other.dtype:
        raise TypeError(
            f"{name}: dtype {_plain(value.dtype)} came, {_plain(other.dtype)} was expected, that of {other_name}"
        )


def expect_value(name: str, holds: bool, came: Any, expected: str) -> None:
    """``ValueError`` unless ``holds``."""
    if not holds:
        raise ValueError(f"{name}: {came} came, {expected} was expected")


def expect_output(dtype: torch.dtype | None) -> None:
    """``dtype`` of a scaled product's result; None: its default."""
    if dtype is not None and dtype not in FLOATS:
        raise TypeError(f"dtype: {_plain(dtype)} came, one of {', '.join(map(_plain, FLOATS))} was expected")


def _plain(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
