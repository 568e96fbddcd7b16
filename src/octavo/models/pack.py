"""Weight packing for the native CPU kernels: the memory layout of all tensors, then filled on a few threads."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np

from octavo.errors import UnsupportedModelError, WeightFormatError
from octavo.kernels.native.matrix import (
    FLOAT_FORMATS,
    MatrixSpec,
    PackedMatrix,
    ScaleRangeError,
    rows_of_tiles,
    stored_spec,
    tile_chunks,
)
from octavo.kernels.native.structs import Format, ScaleType
from octavo.models.dequantize import MAX_THREADS, usable_cores
from octavo.models.packed import PackedModel, PackedTensor, assemble_packed, bias_of, lay_out, views
from octavo.models.packed_memory import allocate
from octavo.models.shapes import EMBEDDING, HEAD, check_names_and_shapes
from octavo.models.weights import WeightSource

CHUNK_BYTES = 1 << 18  # of stored rows: what is read and what is written stay in a core's own cache

# What becomes of float weights: kept as they are, or quantised in groups of 32 while loading. The embedding and the head are
# the most sensitive matrices, so "int4" makes them 8 bits. Weights that a file holds quantised are never changed.
WEIGHTS = ("stored", "int8", "int4")


def pack_model(source: WeightSource, weights: str = "stored") -> PackedModel:
    """Check the source, then read and pack it. Raises ``WeightFormatError``, or ``UnsupportedModelError`` naming the tensor."""
    if weights not in WEIGHTS:
        raise ValueError(f"weights = {weights!r}; expected one of {', '.join(WEIGHTS)}")
    check_names_and_shapes(source)
    try:
        return _pack(source, plan_tensors(source, weights))
    except ScaleRangeError:  # no real model: scales beyond +-8188 in a format that multiplies them by 8
        return _pack(source, plan_tensors(source, weights, wide_scales=True))


def plan_tensors(source: WeightSource, weights: str, *, wide_scales: bool = False) -> tuple[PackedTensor, ...]:
    """Where each tensor will lie, and in which format."""

    def spec_of(name: str, shape: tuple[int, ...], has_bias: bool) -> MatrixSpec:
        stored = source.stored_type(name)
        try:
            spec = stored_spec(stored, *shape, wide_scales=wide_scales)
        except UnsupportedModelError as error:
            raise UnsupportedModelError(f"{name}: {error}") from None
        kind, scales = spec.format, spec.scale_type
        if stored in FLOAT_FORMATS and weights != "stored":
            kind = Format.U4 if weights == "int4" and name not in (EMBEDDING, HEAD) else Format.Q8
            scales = ScaleType.F32 if wide_scales else ScaleType.F16
        return MatrixSpec(kind, scales, spec.n, spec.k, spec.scales_per_group, has_bias)

    return lay_out(source.config, spec_of)


def _pack(source: WeightSource, plan: tuple[PackedTensor, ...]) -> PackedModel:
    memory = allocate(plan[-1].offset + plan[-1].num_bytes)
    tensors = views(plan, memory)
    jobs: list[Callable[[], None]] = []
    for name, tensor in tensors.items():
        if isinstance(tensor, np.ndarray):
            source.read_into(name, tensor)
            continue
        if tensor.spec.has_bias:
            tensor.set_bias(source.get(bias_of(name)))
        jobs += _jobs(source, name, tensor)
    num_threads = max(1, min(usable_cores(), MAX_THREADS, len(jobs)))
    with ThreadPoolExecutor(num_threads) as pool:
        try:
            for _ in pool.map(lambda job: job(), jobs):
                pass
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return assemble_packed(source.config, plan, memory)


def _jobs(source: WeightSource, name: str, matrix: PackedMatrix) -> list[Callable[[], None]]:
    """Independent pieces of work that fill one matrix."""
    stored = source.stored_type(name)
    row_bytes = source.read_rows(name, 0, 1).shape[1]

    def job(first: int, last: int) -> None:
        rows = source.read_rows(name, *rows_of_tiles(matrix.spec, first, last))
        try:
            matrix.pack(stored, rows, first, last)
        except ScaleRangeError:
            raise
        except WeightFormatError as error:
            raise WeightFormatError(f"tensor {name}: {error}") from None

    chunks = tile_chunks(matrix.spec, row_bytes, CHUNK_BYTES)
    return [partial(job, first, last) for first, last in chunks]
