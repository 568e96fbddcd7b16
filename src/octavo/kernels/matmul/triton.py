"""The matrix product in Triton, and with it every dense product: bf16, fp16, fp32; e4m3 and int8 with scales.

Persistent: each program walks over tiles of the result, in an order that keeps GROUP rows of tiles together, so that what runs
at the same time shares its inputs in L2. A tile is BLOCK_M x BLOCK_N accumulators in registers, fed through shared memory by a
pipeline of ``num_stages`` K tiles of BLOCK_K; bound by the tensor cores once there are some hundred rows. On sm_90 the tiles
come by the tensor memory accelerator (``DESCRIPTORS``), else by asynchronous copies. Few rows are bound by reading ``b``: there
K is cut into SPLITS parts, so that every multiprocessor reads, and a second kernel adds the parts in ascending order:
the same bits in every run.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from octavo.kernels.gpu.ahead import Ahead
from octavo.kernels.gpu.triton import INTERPRETED, from_e4m3, has_native_e4m3, num_sms
from octavo.kernels.gpu.tuning import Config
from octavo.kernels.matmul.shapes import COMPILED, ProductShape
from octavo.kernels.matmul.tiles import (
    BLOCK_SCALES,
    ROW_SCALES,
    SCALE_BLOCK,
    SMALL_TILE,
    Kind,
    Product,
    candidates,
    config_for,
    default,
    has_accelerator,
)

_ROW_SCALES, _BLOCK_SCALES, _SCALE_BLOCK = (
    tl.constexpr(ROW_SCALES),
    tl.constexpr(BLOCK_SCALES),
    tl.constexpr(SCALE_BLOCK),
)


@triton.jit
def tile_at(index, num_m, num_n, GROUP: tl.constexpr):
    """The ``index``-th tile: down GROUP rows of tiles, then the next column, then the next GROUP rows."""
    first = index // (GROUP * num_n) * GROUP
    height = tl.minimum(num_m - first, GROUP)
    within = index % (GROUP * num_n)
    return first + within % height, within // height


@triton.jit
def multiply(x, w, accumulator):
    """``accumulator + x @ w`` in the accumulator's type; ``uint8`` holds e4m3's bits, where they have to be converted."""
    if x.dtype == tl.uint8:
        x, w = from_e4m3(x, False), from_e4m3(w, False)
    if INTERPRETED and accumulator.dtype == tl.float32:
        x, w = x.to(tl.float32), w.to(tl.float32)
    return tl.dot(x, w, accumulator, input_precision="ieee", out_dtype=accumulator.dtype)


@triton.jit
def _product(
    a,
    b,
    a_scale,
    b_scale,
    out,
    num_rows,
    num_columns,
    size,
    SCALES: tl.constexpr,  # 0: none, 1: a row's times a column's, 2: blocks of 128 of K
    B_ROWS: tl.constexpr,  # b is [N, K], not [K, N]
    INTEGER: tl.constexpr,
    EVEN: tl.constexpr,  # K is a multiple of BLOCK_K * SPLITS
    DESCRIPTORS: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    GROUP: tl.constexpr,
    SPLITS: tl.constexpr,
):
    num_m, num_n = tl.cdiv(num_rows, BLOCK_M), tl.cdiv(num_columns, BLOCK_N)
    steps = tl.cdiv(tl.cdiv(size, BLOCK_K), SPLITS)
    for item in tl.range(tl.program_id(0), num_m * num_n * SPLITS, tl.num_programs(0), flatten=DESCRIPTORS):
        m, n = tile_at(item % (num_m * num_n), num_m, num_n, GROUP)
        split = item // (num_m * num_n)
        row, column = m * BLOCK_M + tl.arange(0, BLOCK_M), n * BLOCK_N + tl.arange(0, BLOCK_N)
        a_rows = tl.minimum(row, num_rows - 1).to(tl.int64)  # rows beyond the end: any that exist, never stored
        columns = tl.minimum(column, num_columns - 1).to(tl.int64) if B_ROWS else column.to(tl.int64)
        total = tl.zeros([BLOCK_M, BLOCK_N], tl.int32 if INTEGER else tl.float32)
        for step in tl.range(split * steps, (split + 1) * steps):
            k = step * BLOCK_K + tl.arange(0, BLOCK_K)
            if DESCRIPTORS:
                x = a.load([m * BLOCK_M, step * BLOCK_K])
                w = b.load([n * BLOCK_N, step * BLOCK_K]).T if B_ROWS else b.load([step * BLOCK_K, n * BLOCK_N])
            else:
                inside = (k < size) | EVEN
                x = tl.load(a + a_rows[:, None] * size + k[None, :], mask=inside[None, :], other=0.0)
                if B_ROWS:
                    w = tl.load(b + columns[None, :] * size + k[:, None], mask=inside[:, None], other=0.0)
                else:
                    within = inside[:, None] & (column < num_columns)[None, :]
                    w = tl.load(b + k[:, None].to(tl.int64) * num_columns + columns[None, :], mask=within, other=0.0)
            if SCALES == _BLOCK_SCALES:
                groups = tl.cdiv(size, _SCALE_BLOCK)
                group = tl.minimum(step * BLOCK_K // _SCALE_BLOCK, groups - 1)  # a split's last steps may be beyond K
                scale = tl.load(a_scale + a_rows * groups + group)
                scale *= tl.load(b_scale + n * BLOCK_N // _SCALE_BLOCK * groups + group)
                total += multiply(x, w, tl.zeros([BLOCK_M, BLOCK_N], tl.float32)) * scale[:, None]
            else:
                total = multiply(x, w, total)
        _store(total, a_scale, b_scale, out, row, column, num_rows, num_columns, split, SCALES, DESCRIPTORS, SPLITS)


@triton.jit
def _store(
    total,
    a_scale,
    b_scale,
    out,
    row,
    column,
    num_rows,
    num_columns,
    split,
    SCALES: tl.constexpr,
    DESCRIPTORS: tl.constexpr,
    SPLITS: tl.constexpr,
):
    """The finished tile, or its part of a sum over splits, which is scaled when it has been added up."""
    inside = (row < num_rows)[:, None] & (column < num_columns)[None, :]
    if SCALES == _ROW_SCALES and SPLITS == 1:
        a_scales = tl.load(a_scale + row, mask=row < num_rows, other=0.0)
        b_scales = tl.load(b_scale + column, mask=column < num_columns, other=0.0)
        total = total.to(tl.float32) * (a_scales[:, None] * b_scales[None, :])
    if DESCRIPTORS:
        out.store([tl.min(row), tl.min(column)], total.to(out.dtype))
    else:
        at = (split.to(tl.int64) * num_rows + row[:, None]) * num_columns + column[None, :]
        tl.store(out + at, total.to(out.dtype.element_ty), mask=inside)


@triton.jit
def _sum_splits(
    parts, a_scale, b_scale, out, num_columns, count, SCALED: tl.constexpr, SPLITS: tl.constexpr, BLOCK: tl.constexpr
):
    """``out = sum_s parts[s]`` in ascending order of ``s``, times the scales of its row and column; a few reads of L2 each."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < count
    total = tl.load(parts + at, mask=inside, other=0)
    for split in tl.static_range(1, SPLITS):
        total += tl.load(parts + split * count + at, mask=inside, other=0)
    if SCALED:
        scale = tl.load(a_scale + at // num_columns, mask=inside, other=0.0)
        scale *= tl.load(b_scale + at % num_columns, mask=inside, other=0.0)
        total = total.to(tl.float32) * scale
    tl.store(out + at, total.to(out.dtype.element_ty), mask=inside)


def launch(product: Product, config: Config) -> Tensor:
    """``[M, N]`` of ``product.dtype``."""
    rows, columns, size = product.shape
    a, b = (_bits(one) for one in (product.a, product.b))
    out = torch.empty((rows, columns), dtype=product.dtype, device=a.device)
    if not out.numel():
        return out
    tiles = dict(config.tiles)
    splits, integer = tiles["SPLITS"], a.dtype == torch.int8
    parts = out if splits == 1 else out.new_empty((splits, *out.shape), dtype=torch.int32 if integer else torch.float32)
    described = bool(tiles.pop("DESCRIPTORS")) and can_describe(product)
    operands = describe(a, b, parts, tiles, product.b_rows) if described else Operands(a, b, parts)
    num_tiles = triton.cdiv(rows, tiles["BLOCK_M"]) * triton.cdiv(columns, tiles["BLOCK_N"]) * splits
    scales = product.a_scale, product.b_scale
    _product[(min(num_tiles, programs(a.device, config)),)](
        *operands[:2],
        *scales,
        operands[2],
        rows,
        columns,
        size,
        SCALES=product.scales,
        B_ROWS=product.b_rows,
        INTEGER=integer,
        EVEN=size % (tiles["BLOCK_K"] * splits) == 0,
        DESCRIPTORS=described,
        **tiles,
        num_warps=config.num_warps,
        num_stages=config.num_stages,
    )
    if splits == 1:
        return out
    return sum_splits(parts, out, *(scales if product.scales == ROW_SCALES else ()))


def sum_splits(parts: Tensor, out: Tensor, *scales: Tensor | None) -> Tensor:
    """``out`` ``[M, N]`` = the sum of ``parts`` ``[S, M, N]``, times the ``scales`` of its rows and columns if there are any."""
    a_scale, b_scale = scales or (None, None)
    grid = (triton.cdiv(out.numel(), SUM_BLOCK),)
    _sum_splits[grid](
        parts,
        a_scale,
        b_scale,
        out,
        out.shape[1],
        out.numel(),
        SCALED=a_scale is not None,
        SPLITS=parts.shape[0],
        BLOCK=SUM_BLOCK,
    )
    return out


SUM_BLOCK = 1024


def programs(device: torch.device, config: Config) -> int:
    """As many as run at the same time, by shared memory: large tiles fill a multiprocessor, small ones share it."""
    tiles = dict(config.tiles)
    small = tiles["BLOCK_M"] * tiles["BLOCK_N"] <= SMALL_TILE
    return num_sms(device) * (2 if small else 1)


def _bits(x: Tensor) -> Tensor:
    """e4m3 as ``uint8`` where Triton cannot convert it."""
    return x.view(torch.uint8) if x.dtype == torch.float8_e4m3fn and not has_native_e4m3(x.device) else x


def can_describe(product: Product) -> bool:
    """Can the tensor memory accelerator copy these tiles? It needs sm_90, and rows that begin at multiples of 16 bytes."""
    rows, columns, size = product.shape
    row_bytes = [one.shape[1] * one.dtype.itemsize for one in (product.a, product.b)] + [
        columns * product.dtype.itemsize
    ]
    starts = [one.data_ptr() for one in (product.a, product.b)]
    return (
        has_accelerator(product.a.device)
        and min(rows, columns, size) > 0
        and all(one % 16 == 0 for one in row_bytes + starts)
    )


class Operands(NamedTuple):
    """What the kernel reads and writes: tensors, or their descriptors."""

    a: Tensor | TensorDescriptor
    b: Tensor | TensorDescriptor
    out: Tensor | TensorDescriptor


def describe(a: Tensor, b: Tensor, out: Tensor, tiles: dict[str, int], b_rows: bool) -> Operands:
    """What the accelerator is told: each tensor with the tile that is copied at a time."""
    m, n, k = tiles["BLOCK_M"], tiles["BLOCK_N"], tiles["BLOCK_K"]
    return Operands(
        TensorDescriptor.from_tensor(a, [m, k]),
        TensorDescriptor.from_tensor(b, [n, k] if b_rows else [k, n]),
        TensorDescriptor.from_tensor(out, [m, n]),
    )


def matmul(a: Tensor, b: Tensor) -> Tensor:
    """``a``: ``[M, K]``, ``b``: ``[K, N]`` -> ``[M, N]`` of ``a``'s dtype."""
    product = _product_of(a, b)
    return launch(product, config_for("matmul", product))


def configs(a: Tensor, b: Tensor) -> tuple[Config, ...]:
    """What a tuner tries."""
    return candidates(_product_of(a, b))


def _product_of(a: Tensor, b: Tensor) -> Product:
    return Product(a, b, a.dtype)


def ahead(
    element: str,
    out: str,
    shapes: tuple[ProductShape, ...],
    b_rows: bool = False,
    scales: int = 0,
    architectures: tuple[int, ...] = (80, 90),
) -> tuple[Ahead, ...]:
    """The defaults for ``shapes`` on 132 multiprocessors, operands of type ``element``; descriptors on sm_90 alone."""
    found = []
    for shape in shapes:
        for architecture in architectures:
            kind = Kind({"bf16": 2, "fp32": 4}.get(element, 1), scales == BLOCK_SCALES, architecture >= 90)
            config = default(shape, kind, 132)
            tiles = dict(config.tiles)
            described = bool(tiles["DESCRIPTORS"]) and architecture >= 90
            m, n, k = tiles["BLOCK_M"], tiles["BLOCK_N"], tiles["BLOCK_K"]
            accumulator = "i32" if element == "i8" else "fp32"
            written = accumulator if tiles["SPLITS"] > 1 else out
            b_tile = [n, k] if b_rows else [k, n]
            arguments = {
                "a": f"tensordesc<{element}{[m, k]}>" if described else f"*{element}",
                "b": f"tensordesc<{element}{b_tile}>" if described else f"*{element}",
                "a_scale": "*fp32" if scales else None,
                "b_scale": "*fp32" if scales else None,
                "out": f"tensordesc<{out}{[m, n]}>" if described else f"*{written}",
                "num_rows": "i32",
                "num_columns": "i32",
                "size": "i32",
                "SCALES": scales,
                "B_ROWS": b_rows,
                "INTEGER": element == "i8",
                "EVEN": True,
                **tiles,
                "DESCRIPTORS": described,
            }
            found.append(
                Ahead(
                    f"{element} {'x'.join(map(str, shape))} scales {scales}",
                    _product,
                    arguments,
                    config.num_warps,
                    config.num_stages,
                    ("num_columns", "size"),
                    (architecture,),
                )
            )
    return tuple(found)


AHEAD = (
    *ahead("bf16", "bf16", (*COMPILED, ProductShape(64, 28672, 4096))),
    *ahead("fp32", "fp32", (ProductShape(4096, 4096, 4096),)),
)
