"""Tile sizes of matrix products: those that a tuner measures, and the prediction for a GPU without measurements."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import triton
from torch import Tensor

from octavo.kernels.gpu.triton import INTERPRETED, num_sms
from octavo.kernels.gpu.tuning import Config, choose
from octavo.kernels.matmul.shapes import ProductShape

ROW_SCALES, BLOCK_SCALES = 1, 2
SCALE_BLOCK = 128  # K of one scale in both, and columns of ``b`` in a block
SMALL_TILE = 64 * 128  # two programs of this size share a multiprocessor
FEW_ROWS = 64


@dataclass(frozen=True, slots=True)
class Product:
    """``a`` ``[M, K]`` times ``b`` ``[K, N]``, or ``[N, K]`` if ``b_rows``; ``scales``: what ``a_scale`` and ``b_scale`` are."""

    a: Tensor
    b: Tensor
    dtype: torch.dtype
    b_rows: bool = False
    a_scale: Tensor | None = None
    b_scale: Tensor | None = None
    scales: int = 0

    @property
    def shape(self) -> ProductShape:
        """Whatever way ``b`` lies."""
        return ProductShape(self.a.shape[0], self.b.shape[0 if self.b_rows else 1], self.a.shape[1])


def config_for(op: str, product: Product) -> Config:
    """What was measured on this GPU for this class of shapes, else a prediction."""
    return choose(op, key_of(product), default(product.shape, kind_of(product), num_sms(product.a.device)))


def key_of(product: Product) -> str:
    """Shapes that share a configuration: rows to the next power of two, and what the scales are."""
    rows, columns, size = product.shape
    return f"{triton.next_power_of_2(rows)}x{columns}x{size} {str(product.a.dtype)[6:]} {product.scales}"


def kind_of(product: Product) -> Kind:
    """What decides on tiles beside the shape."""
    return Kind(product.a.dtype.itemsize, product.scales == BLOCK_SCALES, has_accelerator(product.a.device))


class Kind(NamedTuple):
    """Bytes of an operand's element, whether scales are per block, and whether there is a tensor memory accelerator."""

    itemsize: int
    blocks: bool
    hopper: bool


def default(shape: ProductShape, kind: Kind, sms: int) -> Config:
    """Few rows: wide K tiles, and splits until each multiprocessor has two parts. Else: the fewest predicted cycles."""
    rows, columns, size = shape
    if kind.itemsize == 4:
        return Config.of(4, 3, BLOCK_M=64, BLOCK_N=64, BLOCK_K=32, GROUP=8, SPLITS=1, DESCRIPTORS=0)
    if rows <= FEW_ROWS:
        block_k = min(256 // kind.itemsize, SCALE_BLOCK)
        parts = 2 * sms // triton.cdiv(columns, 64)
        splits = 1 << max(0, min(parts, size // (4 * block_k), 16).bit_length() - 1)
        return _few(rows, 64, block_k, splits)
    tiles = TILES[kind.hopper and not kind.blocks]
    return _many(min(tiles, key=lambda tile: _cycles(tile, rows, columns, sms)), kind)


# Tiles for many rows. The widest needs sm_90, whose tensor cores read both inputs from shared memory, and a scale for 128 columns
# allows no more.
TILES = (((128, 128), (64, 128), (64, 64)), ((128, 256), (128, 128), (64, 128), (64, 64)))


def _few(rows: int, block_n: int, block_k: int, splits: int) -> Config:
    block_m = max(16, triton.next_power_of_2(rows))
    return Config.of(4, 4, BLOCK_M=block_m, BLOCK_N=block_n, BLOCK_K=block_k, GROUP=1, SPLITS=splits, DESCRIPTORS=0)


def _many(tile: tuple[int, int], kind: Kind, stages: int = 0) -> Config:
    """K tiles of 128 bytes, the width of a swizzled row of shared memory; where 8-bit operands pass through registers, 32."""
    block_m, block_n = tile
    block_k = 128 // kind.itemsize if kind.hopper or kind.itemsize > 1 else 32
    return Config.of(
        8 if block_m * block_n > SMALL_TILE else 4,
        stages or (3 if block_n == 256 else 4),
        BLOCK_M=block_m,
        BLOCK_N=block_n,
        BLOCK_K=block_k,
        GROUP=8,
        SPLITS=1,
        DESCRIPTORS=int(kind.hopper),
    )


def _cycles(tile: tuple[int, int], rows: int, columns: int, sms: int) -> float:
    """Rounds over the multiprocessors, times a tile's work, over the share of the peak that such tiles are predicted to reach."""
    m, n = tile
    rounds: int = -(-triton.cdiv(rows, m) * triton.cdiv(columns, n) // sms)
    return rounds * m * n * (1 + 24 / m + 24 / n)


def candidates(product: Product) -> tuple[Config, ...]:
    """What a tuner tries."""
    (rows, _, size), kind = product.shape, kind_of(product)
    few = [
        _few(rows, block_n, block_k, splits)
        for block_n in (32, 64, 128)
        for block_k in {128 // kind.itemsize, min(256 // kind.itemsize, SCALE_BLOCK)}
        for splits in (1, 2, 4, 8, 16)
        if splits * block_k <= max(size, block_k)
    ]
    many = [_many(tile, kind, stages) for tile in TILES[kind.hopper and not kind.blocks] for stages in (3, 4)]
    return tuple((few if rows <= 2 * FEW_ROWS else []) + (many if rows >= FEW_ROWS else []))


def has_accelerator(device: torch.device) -> bool:
    """The tensor memory accelerator, or the interpreter's."""
    return bool(INTERPRETED.value) or (device.type == "cuda" and torch.cuda.get_device_capability(device) >= (9, 0))
