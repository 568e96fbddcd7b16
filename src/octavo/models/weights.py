"""Where a model's weights come from: one protocol over safetensors folders and GGUF files."""

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
    def config(self) -> TransformerConfig: ...

    def names(self) -> list[str]: ...

    def shape(self, name: str) -> tuple[int, ...]: ...

    def get(self, name: str) -> np.ndarray:
        """A new float32 array; raises ``WeightFormatError`` if there is no such tensor."""
        ...

    def read_into(self, name: str, out: np.ndarray) -> None:
        """Fill ``out``: C-contiguous, float32, of the tensor's shape; it may be a view of a fused buffer."""
        ...

    def close(self) -> None: ...
