"""Products of groups of rows in Triton: one persistent kernel over the tiles of all experts.

Each program reads all offsets at once, counts every expert's tiles of BLOCK_M rows, and finds its tiles by a prefix sum in
registers: nothing is read back to the host, and an expert with all the rows or with none needs no case of its own. Rows of no
expert are a last group, whose tiles are filled with zeros. Tiles go down GROUP rows of tiles first, so that an expert's weight
is read from L2 by all its rows. Many rows an expert: bound by the tensor cores; few: by reading every weight once.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from octavo.kernels.gpu.ahead import Ahead
from octavo.kernels.gpu.triton import dot, num_sms
from octavo.kernels.gpu.tuning import Config, choose
from octavo.kernels.group_gemm.checks import meta
from octavo.kernels.matmul.tiles import has_accelerator
from octavo.kernels.matmul.triton import tile_at


@triton.jit
def _group_gemm(
    a,
    b,
    offsets,
    out,
    num_rows,
    num_columns,
    size,
    num_experts,
    EXPERTS: tl.constexpr,  # a power of two, at least num_experts + 1
    EVEN: tl.constexpr,  # K is a multiple of BLOCK_K
    DESCRIPTORS: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    GROUP: tl.constexpr,
):
    expert = tl.arange(0, EXPERTS)
    real = expert < num_experts
    begins = tl.load(offsets + expert, mask=expert <= num_experts, other=0)  # the last group begins where experts end
    ends = tl.load(offsets + expert + 1, mask=real, other=num_rows)
    begins = tl.minimum(tl.maximum(begins, 0), num_rows)
    ends = tl.minimum(tl.maximum(ends, 0), num_rows)
    blocks = tl.where(expert <= num_experts, tl.cdiv(tl.maximum(ends - begins, 0), BLOCK_M), 0)
    after = tl.cumsum(blocks, 0)
    num_m, num_n = tl.sum(blocks, 0), tl.cdiv(num_columns, BLOCK_N)
    for item in tl.range(tl.program_id(0), num_m * num_n, tl.num_programs(0)):
        m, n = tile_at(item, num_m, num_n, GROUP)
        mine = tl.sum((after <= m).to(tl.int32), 0)  # the experts whose tiles all lie before
        here = expert == mine
        last = tl.sum(tl.where(here, ends, 0), 0)
        first = tl.sum(tl.where(here, begins + (m - after + blocks) * BLOCK_M, 0), 0)
        row, column = first + tl.arange(0, BLOCK_M), n * BLOCK_N + tl.arange(0, BLOCK_N)
        rows = tl.minimum(row, last - 1).to(tl.int64)
        columns = tl.minimum(column, num_columns - 1) + mine.to(tl.int64) * num_columns
        steps = tl.where(mine < num_experts, tl.cdiv(size, BLOCK_K), 0)
        total = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
        for step in tl.range(0, steps):
            if DESCRIPTORS:
                x = a.load([first, step * BLOCK_K])
                w = b.load([mine * num_columns + n * BLOCK_N, step * BLOCK_K])
                total = dot(x, w.T, total)
            else:
                k = step * BLOCK_K + tl.arange(0, BLOCK_K)
                inside = (k < size) | EVEN
                x = tl.load(a + rows[:, None] * size + k[None, :], mask=inside[None, :], other=0.0)
                w = tl.load(b + columns[None, :] * size + k[:, None], mask=inside[:, None], other=0.0)
                total = dot(x, w, total)
        at = row.to(tl.int64)[:, None] * num_columns + column[None, :]
        inside = (row < last)[:, None] & (column < num_columns)[None, :]
        tl.store(out + at, total.to(out.dtype.element_ty), mask=inside)


def group_gemm(a: Tensor, b: Tensor, offsets: Tensor) -> Tensor:
    """``a``: ``[T, K]``, ``b``: ``[E, N, K]``, ``offsets``: ``[E + 1]`` -> ``[T, N]``."""
    out = meta(a, b, offsets)
    (rows, size), (experts, columns, _) = a.shape, b.shape
    if not out.numel():
        return out
    config = choose("group_gemm", _key(a, b), _default_for(a, b))
    tiles = dict(config.tiles)
    described = bool(tiles.pop("DESCRIPTORS")) and can_describe(a, b)
    m, n, k = tiles["BLOCK_M"], tiles["BLOCK_N"], tiles["BLOCK_K"]
    operands = (
        (TensorDescriptor.from_tensor(a, [m, k]), TensorDescriptor.from_tensor(b.view(-1, size), [n, k]))
        if described
        else (a, b)
    )
    most = (triton.cdiv(rows, m) + min(experts, rows)) * triton.cdiv(
        columns, n
    )  # every expert may have a tile not full
    grid = (min(most, num_sms(a.device) * (1 if m * n > 64 * 128 else 2)),)
    _group_gemm[grid](
        *operands,
        offsets,
        out,
        rows,
        columns,
        size,
        experts,
        EXPERTS=triton.next_power_of_2(experts + 1),
        EVEN=size % k == 0,
        DESCRIPTORS=described,
        **tiles,
        num_warps=config.num_warps,
        num_stages=config.num_stages,
    )
    return out


def can_describe(a: Tensor, b: Tensor) -> bool:
    """Can the tensor memory accelerator copy these tiles? It needs sm_90, rows at multiples of 16 bytes, 2^31 rows at most."""
    sizes = a.shape[1] > 0 and b.shape[0] * b.shape[1] < 1 << 31
    starts = a.shape[1] * a.dtype.itemsize, a.data_ptr(), b.data_ptr()
    return has_accelerator(a.device) and sizes and all(one % 16 == 0 for one in starts)


def _key(a: Tensor, b: Tensor) -> str:
    experts, columns, size = b.shape
    return f"{triton.next_power_of_2(a.shape[0])} rows, {experts}x{columns}x{size} {str(a.dtype)[6:]}"


def _default_for(a: Tensor, b: Tensor) -> Config:
    return default(a.shape[0] // b.shape[0], a.dtype.itemsize, has_accelerator(a.device))


def default(rows: int, itemsize: int, hopper: bool) -> Config:
    """``rows``: of an expert, on average. A tile is as high as that; twice as wide where rows are many and it has the room."""
    if itemsize == 4:
        return _config(64, 64, 32, 4, False)
    if rows <= 32:
        return _config(max(16, triton.next_power_of_2(rows)), 64, 128, 4, False)
    if rows <= 128:
        return _config(64, 128, 64, 4, hopper)
    return _config(128, 256, 64, 3, True) if hopper else _config(128, 128, 64, 4, False)


def _config(block_m: int, block_n: int, block_k: int, stages: int, described: bool) -> Config:
    warps = 8 if block_m * block_n > 64 * 128 else 4
    tiles = {"BLOCK_M": block_m, "BLOCK_N": block_n, "BLOCK_K": block_k}
    return Config.of(warps, stages, **tiles, GROUP=8, DESCRIPTORS=int(described))


def configs(a: Tensor, b: Tensor, offsets: Tensor) -> tuple[Config, ...]:
    """What a tuner tries."""
    hopper = has_accelerator(a.device)
    return tuple(
        _config(block_m, block_n, block_k, stages, described)
        for block_m, block_n in ((16, 64), (16, 128), (32, 64), (64, 64), (64, 128), (128, 128), (128, 256))
        for block_k in ((64, 128) if block_m < 64 else (64,))
        for stages in (3, 4)
        for described in {False, hopper}
        if block_m <= 2 * max(16, a.shape[0] // b.shape[0]) and (block_n < 256 or stages == 3)
    )


def _ahead(rows: int, experts: int, architecture: int) -> Ahead:
    config = default(rows, 2, architecture >= 90)
    tiles = dict(config.tiles)
    m, n, k = tiles["BLOCK_M"], tiles["BLOCK_N"], tiles["BLOCK_K"]
    described = bool(tiles["DESCRIPTORS"])
    return Ahead(
        f"{rows} rows an expert",
        _group_gemm,
        {
            "a": f"tensordesc<bf16{[m, k]}>" if described else "*bf16",
            "b": f"tensordesc<bf16{[n, k]}>" if described else "*bf16",
            "offsets": "*i32",
            "out": "*bf16",
            **dict.fromkeys(("num_rows", "num_columns", "size", "num_experts"), "i32"),
            "EXPERTS": triton.next_power_of_2(experts + 1),
            "EVEN": True,
            **tiles,
            "DESCRIPTORS": described,
        },
        config.num_warps,
        config.num_stages,
        ("num_columns", "size"),
        (architecture,),
    )


AHEAD = tuple(
    _ahead(rows, experts, architecture)
    for rows, experts in ((1, 128), (64, 128), (1024, 8))
    for architecture in (80, 90)
)
