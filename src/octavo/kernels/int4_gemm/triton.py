"""The 4-bit product in Triton: three kernels, by the number of rows.

Up to 64 rows it is bound by reading the weight, 0.53 to 0.63 bytes for each number: K is cut into splits (added in order by
``matmul``'s second kernel) until there are several programs on each multiprocessor. The product is computed transposed, ``w @
x.T``: so the weight is the operand that a tensor core takes from registers, where its bytes become numbers, and few rows of
``x`` are its narrow side. A step of K is a group, so that a scale is read once; low and high nibbles are two
products with the parts of ``x`` that belong to them. Up to EXACT_ROWS the tensor cores have time to spare and the rest has not:
numbers take one instruction each, exact but for an offset, and are scaled behind the product: ``sum_k x * (scale * q + minimum) =
scale * sum_k x * (offset + q) + (minimum - offset * scale) * sum_k x``, the second sum by a product with ones.

Above, weights are dequantised in float32 and rounded to the dtype of ``x``, some five instructions each; from 128 rows on in
tiles of 128 columns and 128 rows, bound by that arithmetic beside the tensor cores'.
From DEQUANTIZE_ROWS on, the weight is written out in the dtype of ``x`` once and cuBLAS multiplies: 2.5 bytes of traffic for
each number, predicted at 35 us for 14336 x 4096, where a bf16 product of 4,096 rows takes 690 us.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from octavo.kernels.gpu.ahead import Ahead
from octavo.kernels.gpu.triton import INTERPRETED, dot, num_sms
from octavo.kernels.gpu.tuning import Config, choose
from octavo.kernels.int4_gemm.checks import HALF, meta
from octavo.kernels.matmul.shapes import ProductShape
from octavo.kernels.matmul.triton import sum_splits, tile_at

DEQUANTIZE_ROWS = 1024
FEW_ROWS = 64
EXACT_ROWS = 32
CHUNK = 2048  # bytes to a program that dequantises

_HALF = tl.constexpr(HALF)
_SPREAD = "{ .reg .b32 a, c; prmt.b32 a, $4, 0, 0x4140; prmt.b32 c, $4, 0, 0x4342; "
_PLACE = "lop3.b32 $%d, %s, 0x000f000f, 0x%s, 0xea; "  # (a & mask) | the offset's bits, twice in a word


def _asm(offset: str) -> str:
    """Four bytes in $4 -> their low nibbles in $0 and $1, their high nibbles in $2 and $3, two in a word."""
    low, high = ("".join(_PLACE % (i + j, one, 2 * offset) for i, one in enumerate("ac")) for j in (0, 2))
    return _SPREAD + low + "shr.b32 a, a, 4; shr.b32 c, c, 4; " + high + "}"


_REGISTERS = tl.constexpr("=r,=r,=r,=r,r")
_ASM_BF16, _ASM_FP16 = tl.constexpr(_asm("4300")), tl.constexpr(_asm("6400"))


@triton.jit
def offset_halves(both, dtype: tl.constexpr):
    """Bytes -> ``offset + q`` of the low and of the high nibbles, exactly: four bits in the mantissa of 128 (bfloat16) or 1024.

    One instruction for each number: two bytes are spread over a word, then two nibbles at a time are masked and put in place.
    """
    if INTERPRETED:
        offset: tl.constexpr = offset_of(dtype)
        low, high = ((both & 15).to(tl.float32) + offset).to(dtype), ((both >> 4).to(tl.float32) + offset).to(dtype)
    elif dtype == tl.bfloat16:
        low, high = tl.inline_asm_elementwise(_ASM_BF16, _REGISTERS, [both], (tl.bfloat16, tl.bfloat16), True, 4)
    else:
        low, high = tl.inline_asm_elementwise(_ASM_FP16, _REGISTERS, [both], (tl.float16, tl.float16), True, 4)
    return low, high


@triton.constexpr_function
def offset_of(dtype):
    """What ``offset_halves`` adds."""
    return 128.0 if dtype == tl.bfloat16 else 1024.0


@triton.jit
def _int4_gemm(
    x,
    packed,
    scale,
    minimum,
    out,
    num_rows,
    num_columns,
    size,
    num_groups,
    SIZE: tl.constexpr,  # of a group of K
    EVEN: tl.constexpr,  # K is a multiple of it
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    GROUP: tl.constexpr,
    SPLITS: tl.constexpr,
    EXACT: tl.constexpr,  # scales are put in behind the product, not before
):
    num_m, num_n = tl.cdiv(num_rows, BLOCK_M), tl.cdiv(num_columns, BLOCK_N)
    item = tl.program_id(0)
    m, n = tile_at(item % (num_m * num_n), num_m, num_n, GROUP)
    split = item // (num_m * num_n)
    row, column = m * BLOCK_M + tl.arange(0, BLOCK_M), n * BLOCK_N + tl.arange(0, BLOCK_N)
    rows = tl.minimum(row, num_rows - 1).to(tl.int64)  # beyond the end: any that exist, never stored
    columns = tl.minimum(column, num_columns - 1).to(tl.int64)
    byte = tl.arange(0, SIZE // 2)
    place = byte // _HALF * (2 * _HALF) + byte % _HALF  # in the group, of a byte's low half
    steps = tl.cdiv(num_groups, SPLITS)
    nothing = tl.zeros([BLOCK_N, BLOCK_M], tl.float32)
    total = nothing
    dtype: tl.constexpr = x.dtype.element_ty
    for step in tl.range(split * steps, tl.minimum((split + 1) * steps, num_groups)):
        both = tl.load(packed + columns[:, None] * (num_groups * (SIZE // 2)) + (step * (SIZE // 2) + byte)[None, :])
        scales = tl.load(scale + columns * num_groups + step).to(tl.float32)
        minima = tl.load(minimum + columns * num_groups + step).to(tl.float32)
        k = step * SIZE + place
        inside = (k < size) | EVEN
        x_low = tl.load(x + rows[None, :] * size + k[:, None], mask=inside[:, None], other=0.0)
        inside = (k + _HALF < size) | EVEN
        x_high = tl.load(x + rows[None, :] * size + k[:, None] + _HALF, mask=inside[:, None], other=0.0)
        if EXACT:
            low, high = offset_halves(both, dtype)
            part = dot(high, x_high, dot(low, x_low, nothing))
            ones = tl.full([BLOCK_N, SIZE // 2], 1.0, tl.float32).to(dtype)
            sums = dot(ones, x_high, dot(ones, x_low, nothing))
            total += part * scales[:, None] + sums * (minima - offset_of(dtype) * scales)[:, None]
        else:
            w_low = (both & 15).to(tl.float32) * scales[:, None] + minima[:, None]
            w_high = (both >> 4).to(tl.float32) * scales[:, None] + minima[:, None]
            total = dot(w_high.to(dtype), x_high, dot(w_low.to(dtype), x_low, total))
    at = (split.to(tl.int64) * num_rows + row[None, :]) * num_columns + column[:, None]
    inside = (column < num_columns)[:, None] & (row < num_rows)[None, :]
    tl.store(out + at, total.to(out.dtype.element_ty), mask=inside)


@triton.jit
def _dequantize(packed, scale, minimum, out, size, num_groups, SIZE: tl.constexpr, CHUNK: tl.constexpr):
    """A row's bytes, CHUNK to a program, as numbers: 0.53 bytes in and 2 out for each, bound by memory."""
    row = tl.program_id(0).to(tl.int64)
    byte = tl.program_id(1) * CHUNK + tl.arange(0, CHUNK)
    there = byte < num_groups * (SIZE // 2)
    both = tl.load(packed + row * (num_groups * (SIZE // 2)) + byte, mask=there, other=0)
    group = row * num_groups + byte // (SIZE // 2)
    scales = tl.load(scale + group, mask=there, other=0.0).to(tl.float32)
    minima = tl.load(minimum + group, mask=there, other=0.0).to(tl.float32)
    k = byte // _HALF * (2 * _HALF) + byte % _HALF
    w_low, w_high = (both & 15).to(tl.float32) * scales + minima, (both >> 4).to(tl.float32) * scales + minima
    dtype: tl.constexpr = out.dtype.element_ty
    tl.store(out + row * size + k, w_low.to(dtype), mask=k < size)
    tl.store(out + row * size + k + _HALF, w_high.to(dtype), mask=k + _HALF < size)


def int4_gemm(x: Tensor, packed: Tensor, scale: Tensor, minimum: Tensor, group: int) -> Tensor:
    """``x``: ``[M, K]`` -> ``[M, N]`` of its dtype."""
    out = meta(x, packed, scale, minimum, group)
    (rows, size), columns = x.shape, packed.shape[0]
    if not out.numel():
        return out
    key = f"{triton.next_power_of_2(rows)}x{columns}x{size} by {group}"
    config = choose("int4_gemm", key, default(ProductShape(rows, columns, size), group, num_sms(x.device)))
    tiles = dict(config.tiles)
    if tiles.pop("DEQUANTIZE"):
        return torch.mm(x, dequantize(packed, scale, minimum, size, x.dtype).T, out=out)
    splits = tiles["SPLITS"]
    parts = out if splits == 1 else out.new_empty((splits, *out.shape), dtype=torch.float32)
    grid = (triton.cdiv(rows, tiles["BLOCK_M"]) * triton.cdiv(columns, tiles["BLOCK_N"]) * splits,)
    _int4_gemm[grid](
        x,
        packed,
        scale,
        minimum,
        parts,
        rows,
        columns,
        size,
        scale.shape[1],
        SIZE=group,
        EVEN=size % group == 0,
        **tiles,
        num_warps=config.num_warps,
        num_stages=config.num_stages,
    )
    return out if splits == 1 else sum_splits(parts, out)


def dequantize(packed: Tensor, scale: Tensor, minimum: Tensor, size: int, dtype: torch.dtype) -> Tensor:
    """The weight ``[N, size]``, in float32 and rounded to ``dtype``."""
    columns, groups = scale.shape
    out = scale.new_empty((columns, size), dtype=dtype)
    row_bytes = packed.shape[1]
    if out.numel():
        grid = (columns, triton.cdiv(row_bytes, CHUNK))
        _dequantize[grid](packed, scale, minimum, out, size, groups, SIZE=2 * row_bytes // groups, CHUNK=CHUNK)
    return out


def default(shape: ProductShape, group: int, sms: int) -> Config:
    """Few rows: splits until each multiprocessor has four programs. Very many: the weight is dequantised first."""
    rows, columns, size = shape
    if rows > DEQUANTIZE_ROWS:
        return _config(128, 128, 1, dequantize=True)
    if rows > FEW_ROWS:
        return _config(128 if rows > 2 * FEW_ROWS else 64, 128, 1)
    parts = 4 * sms // triton.cdiv(columns, 64)
    splits = 1 << max(0, min(parts, size // (4 * group), 16).bit_length() - 1)
    return _config(max(16, triton.next_power_of_2(rows)), 64, splits)


def _config(
    block_m: int, block_n: int, splits: int, warps: int = 0, stages: int = 4, dequantize: bool = False
) -> Config:
    return Config.of(
        warps or (8 if block_m * block_n > 64 * 128 else 4),
        stages,
        BLOCK_M=block_m,
        BLOCK_N=block_n,
        GROUP=8,
        SPLITS=splits,
        EXACT=int(block_m <= EXACT_ROWS),
        DEQUANTIZE=int(dequantize),
    )


def configs(x: Tensor, packed: Tensor, scale: Tensor, minimum: Tensor, group: int) -> tuple[Config, ...]:
    """What a tuner tries."""
    rows, groups = x.shape[0], scale.shape[1]
    few = [
        _config(max(16, triton.next_power_of_2(rows)), block_n, splits, 4, stages)
        for block_n in (32, 64, 128)
        for splits in (1, 2, 4, 8, 16)
        for stages in (3, 5)
        if rows <= 2 * FEW_ROWS and splits <= groups
    ]
    many = [
        _config(block_m, block_n, 1, stages=stages)
        for block_m, block_n in ((64, 64), (64, 128), (128, 128), (256, 128))
        for stages in (3, 4)
        if rows >= FEW_ROWS
    ]
    return (*few, *many, *([_config(128, 128, 1, dequantize=True)] if rows >= FEW_ROWS else []))


_TYPES = {"packed": "*u8", "scale": "*fp16", "minimum": "*fp16", "size": "i32", "num_groups": "i32"}


def _ahead(rows: int, columns: int, size: int, group: int) -> Ahead:
    config = default(ProductShape(rows, columns, size), group, 132)
    tiles = {name: value for name, value in config.tiles if name != "DEQUANTIZE"}
    out = "fp32" if tiles["SPLITS"] > 1 else "bf16"
    order = ("x", "packed", "scale", "minimum", "out", "num_rows", "num_columns", "size", "num_groups")
    types = {**_TYPES, "x": "*bf16", "out": f"*{out}", "num_rows": "i32", "num_columns": "i32"}
    return Ahead(
        f"{rows}x{columns}x{size} by {group}",
        _int4_gemm,
        {**{name: types[name] for name in order}, "SIZE": group, "EVEN": True, **tiles},
        config.num_warps,
        config.num_stages,
        ("num_columns", "size", "num_groups"),
    )


AHEAD = (
    *(_ahead(rows, 4096, 4096, group) for rows, group in ((16, 32), (16, 128), (64, 128), (128, 128), (1024, 128))),
    Ahead(
        "dequantize",
        _dequantize,
        {name: {**_TYPES, "out": "*bf16"}[name] for name in ("packed", "scale", "minimum", "out", "size", "num_groups")}
        | {"SIZE": 128, "CHUNK": CHUNK},
        divisible=("size", "num_groups"),
    ),
)
