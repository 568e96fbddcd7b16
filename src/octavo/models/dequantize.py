"""Dequantisation of GGUF blocks to float32, chunk by chunk on a few threads.

The values are exactly the ``gguf`` library's. It works block by block, so any cut between blocks gives its results;
chunks that fit in the processor's caches and numpy's release of the GIL make it several times faster. The four types of
32 elements with packed nibbles are worked out here: the library's inner loops of 16 elements cost five times as much,
which is a second of every start of the default model.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from octavo.errors import WeightFormatError
from octavo.gguf.header import TENSOR_TYPES, TensorInfo

CHUNK_ELEMENTS = 1 << 17  # 0.5 MB of float32, a multiple of every block size
MAX_THREADS = 8

# type: (it has an offset after the scale, it has a fifth bit)
_NIBBLE_LAYOUTS = {"Q4_0": (False, False), "Q4_1": (True, False), "Q5_0": (False, True), "Q5_1": (True, True)}

ReadBytes = Callable[[int, int], np.ndarray]  # (first byte within the tensor, number of bytes) -> uint8


def dequantize_into(info: TensorInfo, read: ReadBytes, out: np.ndarray) -> None:
    """Fill ``out`` (C-contiguous float32, any shape of the right size) from the tensor's bytes.

    Raises ``WeightFormatError`` if a value is not finite: no sound model holds such weights.
    """
    if out.dtype != np.float32 or not out.flags.c_contiguous or out.shape != info.shape:
        raise ValueError(f"{info.name}: out must be C-contiguous float32 {info.shape}, not {out.dtype} {out.shape}")
    flat = out.reshape(-1)
    starts = range(0, flat.size, CHUNK_ELEMENTS)

    def fill(start: int) -> None:
        _fill_chunk(info, read, flat, start)

    num_threads = min(usable_cores(), MAX_THREADS, len(starts))
    if num_threads < 2:
        for start in starts:
            fill(start)
        return
    with ThreadPoolExecutor(num_threads) as pool:
        for _ in pool.map(fill, starts):  # consuming raises a worker's error here
            pass


def usable_cores() -> int:
    """Cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _fill_chunk(info: TensorInfo, read: ReadBytes, flat: np.ndarray, start: int) -> None:
    _, block_elements, block_bytes = TENSOR_TYPES[info.type_id]
    end = min(start + CHUNK_ELEMENTS, flat.size)
    raw = read(start // block_elements * block_bytes, (end - start) // block_elements * block_bytes)
    with np.errstate(all="ignore"):  # hostile scales overflow; they are caught below
        if info.type_name in _NIBBLE_LAYOUTS:
            values = _nibble_blocks(raw.reshape(-1, block_bytes), *_NIBBLE_LAYOUTS[info.type_name])
        else:  # one row, because the library cuts rows into groups of 16: far below the best chunk for narrow tensors
            values = _library_dequantize(raw.reshape(1, -1), info.type_id).reshape(-1)
        sound = bool(np.isfinite(values.min()) and np.isfinite(values.max()))
    if not sound:
        raise WeightFormatError(f"tensor {info.name!r} holds values that are not finite: the file is corrupt")
    flat[start:end] = values


def _library_dequantize(rows: np.ndarray, type_id: int) -> np.ndarray:
    """By the ``gguf`` library, which is imported when it is needed: whoever maps a packed model never pays for it."""
    from gguf.constants import GGMLQuantizationType
    from gguf.quants import dequantize

    values: np.ndarray = dequantize(rows, GGMLQuantizationType(type_id))
    return values


def _nibble_blocks(blocks: np.ndarray, has_offset: bool, has_fifth_bit: bool) -> np.ndarray:
    """``[n, bytes]`` -> ``[n * 32]``: ``d * q + m`` or, without an offset, ``d * (q - half the range)``.

    A block is f16 d, [f16 m], [32 high bits], 16 bytes: the low nibbles are elements 0..15, the high ones 16..31.
    """
    num_scale_bytes = 4 if has_offset else 2
    scales = np.ascontiguousarray(blocks[:, :num_scale_bytes]).view(np.float16).astype(np.float32)
    nibbles = np.ascontiguousarray(blocks[:, -16:])
    q = np.empty((len(blocks), 32), np.uint8)
    np.bitwise_and(nibbles, 0x0F, out=q[:, :16])
    np.right_shift(nibbles, 4, out=q[:, 16:])
    if has_fifth_bit:
        high = blocks[:, num_scale_bytes : num_scale_bytes + 4]
        q |= np.unpackbits(high, axis=1, bitorder="little") << np.uint8(4)
    values = q.astype(np.float32)
    if not has_offset:
        values -= 16 if has_fifth_bit else 8
    values *= scales[:, :1]
    if has_offset:
        values += scales[:, 1:]
    return values.reshape(-1)
