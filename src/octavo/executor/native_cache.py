"""KV cache memory of the native CPU kernels: one allocation, layer by layer, float32, bfloat16 or int8."""

from __future__ import annotations

import ctypes as c

import numpy as np
from numpy.typing import NDArray

from octavo.kernels.native import structs

ELEMENT_BYTES = {structs.KvType.F32: 4, structs.KvType.BF16: 2, structs.KvType.I8: 1}
KV_TYPES = {"float32": structs.KvType.F32, "bfloat16": structs.KvType.BF16, "int8": structs.KvType.I8}


class NativeCache:
    """Untouched memory: pages are committed when a block is first written."""

    def __init__(self, shape: structs.KvShape, num_layers: int) -> None:
        self.shape, self.block_size = shape, int(shape.block_size)
        kind = structs.KvType(shape.type)
        tokens = shape.num_blocks * shape.block_size
        elements = tokens * shape.num_kv_heads * shape.head_dim * ELEMENT_BYTES[kind]
        scales = tokens * shape.num_kv_heads * 4 if kind is structs.KvType.I8 else 0
        self._memory: list[NDArray[np.uint8]] = []
        self.layers = (structs.KvLayer * num_layers)()
        for layer in self.layers:
            layer.keys, layer.values = self._take(elements), self._take(elements)
            if scales:
                layer.key_scales, layer.value_scales = self._take(scales), self._take(scales)

    @property
    def num_bytes(self) -> int:
        """Of all layers, scales included."""
        return sum(part.nbytes for part in self._memory)

    @property
    def address(self) -> int:
        """Of the array of ``KvLayer``, for C++; valid as long as this object lives."""
        return c.addressof(self.layers)

    def poison(self) -> None:
        """NaN everywhere, for tests: whoever reads what nobody wrote shows it."""
        for memory in self._memory:
            memory.fill(0xFF)

    def _take(self, num_bytes: int) -> int:
        memory = np.empty(num_bytes + 64, np.uint8)
        self._memory.append(memory)
        return memory.ctypes.data + -memory.ctypes.data % 64
