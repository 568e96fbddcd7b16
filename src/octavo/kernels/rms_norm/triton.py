"""RMSNorm and LayerNorm in Triton, with a residual added first, and backward: every row in registers, float32 inside.

Bound by memory. Forward: a read and a write of every element (with a residual two of each). Backward: ``x`` and ``grad`` are read
and ``grad_x`` is written; nothing else was kept from forward, for the row's statistics are free once it is in registers. The
weight's gradient is summed in two stages without atomics, so its bits repeat: each program sums its own rows, a second
kernel adds the programs' sums in their order. Some two programs an SM keep those sums to a few percent of the traffic.
Prediction for an H200: 90 % of copy bandwidth, 85 % backward.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from octavo.kernels.gpu.ahead import Ahead
from octavo.kernels.gpu.triton import RowTiles, num_sms, row_tiles
from octavo.kernels.rms_norm import cpu

WIDEST = 65536  # a wider row is no hidden size; torch's operations take it


@triton.jit
def _standardised(values, inside, size, eps, CENTERED: tl.constexpr):
    """Rows of mean square (``CENTERED``: variance) 1, and what they were multiplied by."""
    if CENTERED:
        values = tl.where(inside, values - tl.sum(values, axis=1)[:, None] / size, 0.0)
    inverse = 1.0 / tl.sqrt(tl.sum(values * values, axis=1) / size + eps)
    return values * inverse[:, None], inverse


@triton.jit
def _forward(
    x, residual, weight, bias, out, summed, num_rows, num_heads, size, eps,
    CENTERED: tl.constexpr, PER_HEAD: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """``ROWS`` rows a program; ``residual``, ``bias`` and ``summed`` may be None."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    column = tl.arange(0, BLOCK)[None, :]
    inside, at = (row < num_rows) & (column < size), row * size + column
    values = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
    if residual is not None:
        values += tl.load(residual + at, mask=inside, other=0.0).to(tl.float32)
        rounded = values.to(summed.dtype.element_ty)
        tl.store(summed + at, rounded, mask=inside)
        values = rounded.to(tl.float32)  # what the next layer sees is what is normalised
    values = _standardised(values, inside, size, eps, CENTERED)[0]
    if PER_HEAD:
        values *= tl.load(weight + (row % num_heads) * size + column, mask=inside, other=0.0).to(tl.float32)
    else:
        values *= tl.load(weight + column, mask=column < size, other=0.0).to(tl.float32)
    if bias is not None:
        values += tl.load(bias + column, mask=column < size, other=0.0).to(tl.float32)
    tl.store(out + at, values.to(out.dtype.element_ty), mask=inside)


@triton.jit
def _backward(
    grad, x, weight, grad_sum, grad_x, weight_parts, bias_parts, num_rows, rows_each, num_heads, size, eps,
    CENTERED: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """``rows_each`` of one head's ``num_rows`` rows a program, ``ROWS`` at a time; its sums go to row ``program_id(0)``."""
    part, head = tl.program_id(0), tl.program_id(1)
    column = tl.arange(0, BLOCK)[None, :]
    weights = tl.load(weight + head * size + column, mask=column < size, other=0.0).to(tl.float32)
    for_weight = tl.zeros([ROWS, BLOCK], tl.float32)
    for_bias = tl.zeros([ROWS, BLOCK], tl.float32)
    for begin in range(part * rows_each, min(num_rows, part * rows_each + rows_each), ROWS):
        row = begin + tl.arange(0, ROWS)[:, None]
        inside = (row < num_rows) & (column < size)
        at = (row.to(tl.int64) * num_heads + head) * size + column
        values = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
        grads = tl.load(grad + at, mask=inside, other=0.0).to(tl.float32)
        values, inverse = _standardised(values, inside, size, eps, CENTERED)
        weighted = grads * weights
        change = weighted - values * (tl.sum(weighted * values, axis=1) / size)[:, None]
        if CENTERED:
            change -= (tl.sum(weighted, axis=1) / size)[:, None]
        change *= inverse[:, None]
        if grad_sum is not None:
            change += tl.load(grad_sum + at, mask=inside, other=0.0).to(tl.float32)
        tl.store(grad_x + at, change.to(grad_x.dtype.element_ty), mask=inside)
        for_weight += grads * values
        if bias_parts is not None:
            for_bias += grads
    at = (part.to(tl.int64) * num_heads + head) * size + tl.arange(0, BLOCK)
    inside = tl.arange(0, BLOCK) < size
    tl.store(weight_parts + at, tl.sum(for_weight, axis=0), mask=inside)
    if bias_parts is not None:
        tl.store(bias_parts + at, tl.sum(for_bias, axis=0), mask=inside)


@triton.jit
def _add_parts(parts, out, num_parts, size, PARTS: tl.constexpr, BLOCK: tl.constexpr):
    """The sum over the rows of ``parts`` ``[num_parts, size]``, always in the same order."""
    column = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)[None, :]
    total = tl.zeros([PARTS, BLOCK], tl.float32)
    for begin in range(0, num_parts, PARTS):
        row = begin + tl.arange(0, PARTS)[:, None]
        inside = (row < num_parts) & (column < size)
        total += tl.load(parts + row.to(tl.int64) * size + column, mask=inside, other=0.0)
    column = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out + column, tl.sum(total, axis=0).to(out.dtype.element_ty), mask=column < size)


def forward(
    x: Tensor, residual: Tensor | None, weight: Tensor, bias: Tensor | None, eps: float, centered: bool
) -> tuple[Tensor, Tensor]:
    """The normalised ``x + residual``, and that sum (``x`` without a residual). ``size <= WIDEST``."""
    out, size = torch.empty_like(x), x.shape[-1]
    summed = x if residual is None else torch.empty_like(x)
    num_rows, heads = x.numel() // size, weight.numel() // size
    if num_rows:
        tiles = row_tiles(num_rows, size, x.device)
        _forward[(triton.cdiv(num_rows, tiles.rows),)](
            x, residual, weight, bias, out, None if residual is None else summed, num_rows, heads, size, eps,
            CENTERED=centered, PER_HEAD=heads > 1, **tiles.launch(),
        )  # fmt: skip
    return out, summed


class Gradients(NamedTuple):
    """By the rows, by the weight and, where the rows were centered, by the bias."""

    x: Tensor
    weight: Tensor
    bias: Tensor | None


def backward(grad: Tensor, x: Tensor, weight: Tensor, grad_sum: Tensor | None, eps: float, centered: bool) -> Gradients:
    """``grad``: of the output; ``grad_sum``: of the sum, where it was an output too. ``size <= WIDEST``."""
    size = x.shape[-1]
    grad_x, grad_weight = torch.empty_like(x), torch.empty_like(weight)
    grad_bias = torch.empty_like(weight) if centered else None
    heads = weight.numel() // size
    num_rows = x.numel() // size // heads  # of each head
    tiles = backward_tiles(row_tiles(num_rows, size, x.device))
    parts = min(triton.cdiv(num_rows, tiles.rows), 2 * num_sms(x.device))
    rows_each = triton.cdiv(triton.cdiv(num_rows, max(1, parts)), tiles.rows) * tiles.rows
    parts = triton.cdiv(num_rows, max(1, rows_each))
    sums = [torch.empty(parts, weight.numel(), dtype=torch.float32, device=x.device) for _ in range(1 + centered)]
    if parts:
        _backward[(parts, heads)](
            grad, x, weight, grad_sum, grad_x, sums[0], sums[1] if centered else None,
            num_rows, rows_each, heads, size, eps, CENTERED=centered, **tiles.launch(),
        )  # fmt: skip
    for out, part in zip((grad_weight, grad_bias), sums, strict=False):
        _add_parts[(triton.cdiv(weight.numel(), 64),)](part, out, parts, weight.numel(), PARTS=32, BLOCK=64)
    return Gradients(grad_x, grad_weight, grad_bias)


def backward_tiles(tiles: RowTiles) -> RowTiles:
    """Six tiles of float32 are alive at once, not two: eight elements a thread."""
    return RowTiles(tiles.rows, tiles.block, min(32, max(1, tiles.rows * tiles.block // 256)))


def rms_norm(x: Tensor, weight: Tensor, eps: float = 1e-6) -> Tensor:
    """``x``: ``[..., N]``; ``weight``: ``[N]`` or ``[H, N]`` -> shape and dtype of ``x``."""
    if x.shape[-1] > WIDEST:
        return cpu.rms_norm(x, weight, eps)
    return forward(x.contiguous(), None, weight, None, eps, centered=False)[0]


def add_rms_norm(x: Tensor, residual: Tensor, weight: Tensor, eps: float = 1e-6) -> tuple[Tensor, Tensor]:
    """The normalised sum, and the sum; both like ``x``."""
    if x.shape[-1] > WIDEST:
        return cpu.add_rms_norm(x, residual, weight, eps)
    return forward(x, residual, weight, None, eps, centered=False)


def rms_norm_backward(
    grad: Tensor, x: Tensor, weight: Tensor, eps: float = 1e-6, grad_sum: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Gradients by ``x`` and by ``weight``."""
    if x.shape[-1] > WIDEST:
        return cpu.rms_norm_backward(grad, x, weight, eps, grad_sum)
    return backward(grad, x, weight, grad_sum, eps, centered=False)[:2]


_FORWARD = {
    "x": "*bf16", "residual": None, "weight": "*bf16", "bias": None, "out": "*bf16", "summed": None, "num_rows": "i32",
    "num_heads": "i32", "size": "i32", "eps": "fp32", "CENTERED": False, "PER_HEAD": False,
}  # fmt: skip
_BACKWARD = {
    "grad": "*bf16", "x": "*bf16", "weight": "*bf16", "grad_sum": "*bf16", "grad_x": "*bf16", "weight_parts": "*fp32",
    "bias_parts": None, "num_rows": "i32", "rows_each": "i32", "num_heads": 1, "size": "i32", "eps": "fp32", "CENTERED": False,
}  # fmt: skip
_ADDED = {"residual": "*bf16", "summed": "*bf16"}
_LAYER = {"CENTERED": True, "bias": "*bf16"}
AHEAD = (
    *(
        Ahead(name, _forward, {**_FORWARD, **more, "ROWS": rows, "BLOCK": block}, warps, divisible=("size",))
        for name, more, rows, block, warps in (
            ("16 x 128 per head", {"PER_HEAD": True}, 16, 128, 4),
            ("4096", {}, 1, 4096, 8),
            ("4096 add", _ADDED, 1, 4096, 8),
            ("16384 add", _ADDED, 1, 16384, 16),
            ("4096 add layer", {**_ADDED, **_LAYER}, 1, 4096, 8),
        )
    ),
    *(
        Ahead(name, _backward, {**_BACKWARD, **more, "ROWS": rows, "BLOCK": block}, warps, divisible=("size",))
        for name, more, rows, block, warps in (
            ("4096 backward", {}, 1, 4096, 16),
            ("8192 backward layer", {"CENTERED": True, "bias_parts": "*fp32"}, 1, 8192, 32),
        )
    ),
    Ahead(
        "add parts",
        _add_parts,
        {"parts": "*fp32", "out": "*bf16", "num_parts": "i32", "size": "i32", "PARTS": 32, "BLOCK": 64},
        divisible=("size",),
    ),
)
