"""Reference unpacking of packed weight matrices with plain numpy, for tests of the native kernels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from octavo.kernels.native.matrix import PackedMatrix
from octavo.kernels.native.structs import GROUP, TILE, Format, ScaleType


@dataclass(frozen=True)
class Unpacked:
    """``w = scale * q + min``, padded: q ``[tiles * 16, groups * 32]``, others ``[tiles * 16, all scales of a row]``."""

    q: np.ndarray
    scale: np.ndarray
    min: np.ndarray

    def weights(self, n: int, k: int, dtype: type = np.float64) -> np.ndarray:
        """``[n, k]``; exact in float64."""
        width = self.q.shape[1] // self.scale.shape[1]
        scale, low = (np.repeat(part.astype(dtype), width, axis=1) for part in (self.scale, self.min))
        return (scale * self.q.astype(dtype) + low)[:n, :k]


def unpack(matrix: PackedMatrix) -> Unpacked:
    spec = matrix.spec
    tiles, groups, scales_per_group = spec.num_tiles, spec.num_groups, spec.scales_per_group
    elements, scales, mins, _ = matrix.parts
    ones, zeros = np.ones((tiles * TILE, groups)), np.zeros((tiles * TILE, groups))
    if spec.format in (Format.F32, Format.BF16):
        if spec.format == Format.BF16:
            values = (elements.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
        else:
            values = elements.view(np.float32)
        rows = values.reshape(tiles, groups * GROUP, TILE).swapaxes(1, 2).reshape(tiles * TILE, groups * GROUP)
        return Unpacked(rows, ones, zeros)
    if spec.format == Format.U4:
        pairs = elements.reshape(tiles, groups, 4, 1, TILE, 4)
        quads = np.concatenate((pairs & 15, pairs >> 4), axis=3).reshape(tiles, groups, 8, TILE, 4)
    else:
        quads = elements.view(np.int8 if spec.format == Format.Q8 else np.uint8).reshape(tiles, groups, 8, TILE, 4)
    q = quads.transpose(0, 3, 1, 2, 4).reshape(tiles * TILE, groups * GROUP)

    def numbers(part: np.ndarray) -> np.ndarray:
        flat = part.view(np.float16 if spec.scale_type == ScaleType.F16 else np.float32).astype(np.float32)
        return (
            flat.reshape(tiles, groups * scales_per_group, TILE)
            .swapaxes(1, 2)
            .reshape(tiles * TILE, groups * scales_per_group)
        )

    return Unpacked(q, numbers(scales), zeros if spec.format == Format.Q8 else numbers(mins))
