"""One forward step of a packed model as one call of the C library: flat arrays in, logits and top tokens out."""

from __future__ import annotations

import ctypes as c
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from octavo.executor.flat import FlatBatch
from octavo.executor.native_cache import NativeCache
from octavo.executor.native_model import NativeModel
from octavo.kernels.native import library, structs
from octavo.models.packed import PackedModel


@dataclass(frozen=True, slots=True)
class StepLimits:
    """The largest step: rows that are computed, and rows whose logits are wanted."""

    num_rows: int
    num_logit_rows: int


@dataclass(frozen=True, slots=True)
class StepLogits:
    """Valid until the next step. ``tokens``: the most likely of each row, the lowest id among equals; -1: no finite one."""

    logits: NDArray[np.float32]  # [S, vocabulary padded to whole tiles]
    tokens: NDArray[np.int32]  # [S]


class NativeStep:
    """Owns the threads and the workspace; every byte that steps need is taken here. One step at a time."""

    def __init__(
        self, packed: PackedModel, cache: NativeCache, limits: StepLimits, num_threads: int, isa: str = ""
    ) -> None:
        self._model = NativeModel(packed, cache)
        self._library = library.load()
        table = library.kernel_table(isa)
        if table is None:
            raise ValueError(f"this CPU cannot run the native kernels for {isa!r}")
        rows = min(limits.num_logit_rows, limits.num_rows)
        self._state = self._library.octavo_step_state_new(
            c.byref(self._model.struct), table, num_threads, limits.num_rows, rows
        )
        if not self._state:
            raise MemoryError(f"no memory for a step of {limits.num_rows} rows")
        self._logits = np.empty((rows, self._model.struct.head.num_tiles * structs.TILE), np.float32)
        self._tokens = np.empty(rows, np.int32)
        self._output = structs.StepOutput(self._logits.ctypes.data, self._tokens.ctypes.data)
        self._output_address = c.addressof(self._output)

    @property
    def vocab_size(self) -> int:
        """Logits of a row, without the padding of the last tile."""
        return int(self._model.struct.vocab_size)

    def forward(self, flat: FlatBatch) -> StepLogits:
        """Write the keys and values of every row, compute the logits of the wanted ones. Raises ``ValueError``: a bad batch."""
        if self._state is None:
            raise ValueError("the step was closed")
        n = flat.num_logit_rows
        address, _ = flat.ints.buffer_info()
        sizes = (flat.num_rows, flat.num_requests, flat.max_blocks, n)
        error = self._library.octavo_step(self._state, address, *sizes, self._output_address)
        if error:
            raise ValueError(f"the native step refused its batch: {structs.StepError(error).name.lower()}")
        return StepLogits(self._logits[:n], self._tokens[:n])

    def draw(self, rows: NDArray[np.void]) -> NDArray[np.int32]:
        """Tokens for ``rows`` (of ``structs.SAMPLING_ROW``) of the last step's logits; -1 where a row's are not sound."""
        tokens = np.empty(len(rows), np.int32)
        rows = np.ascontiguousarray(rows)
        self._library.octavo_sample(self._state, self._output_address, rows.ctypes.data, len(rows), tokens.ctypes.data)
        return tokens

    def close(self) -> None:
        """End the threads and free the workspace."""
        if self._state is not None:
            self._library.octavo_step_state_delete(self._state)
            self._state = None
