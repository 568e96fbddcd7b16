"""``WeightSource``: the protocol that safetensors folders and GGUF files share."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from octavo.models.config import TransformerConfig


class WeightSource(Protocol):
    """Tensors by their Hugging Face names (``model.layers.0.self_attn.q_proj.weight``), as float32 in that layout.

    Norm weights are effective ones: Gemma's offset of 1 is already inside. Sources read lazily and keep nothing, so peak
    memory is the destination and a few chunks.
    """

    @property
    def config(self) -> TransformerConfig:
        """Read once, at opening."""
        ...

    def names(self) -> list[str]:
        """Of all tensors, in Hugging Face's spelling."""
        ...

    def shape(self, name: str) -> tuple[int, ...]:
        """In Hugging Face's order, rows first. Raises ``WeightFormatError`` if there is no such tensor."""
        ...

    def get(self, name: str) -> np.ndarray:
        """A new float32 array; raises ``WeightFormatError`` if there is no such tensor."""
        ...

    def read_into(self, name: str, out: np.ndarray) -> None:
        """Fill ``out``: C-contiguous, float32, of the tensor's shape; it may be a view of a fused buffer."""
        ...

    def stored_type(self, name: str) -> str:
        """How the tensor is stored, in ggml's words: F32, BF16, Q4_K, ..."""
        ...

    def read_rows(self, name: str, start: int, stop: int) -> np.ndarray:
        """Rows of a matrix as they are stored, in Hugging Face's order: ``uint8 [stop - start, bytes of a row]``.

        Safe to call from several threads.
        """
        ...

    def close(self) -> None:
        """Close the files; the source is of no use afterwards."""
        ...
