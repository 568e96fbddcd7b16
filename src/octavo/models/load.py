"""Model loading from a path, a safetensors folder or a .gguf file: config, torch transformer or packed model."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from octavo.errors import ModelNotFoundError
from octavo.models.config import TransformerConfig

if TYPE_CHECKING:
    import torch

    from octavo.models.packed import PackedModel
    from octavo.models.transformer import Transformer
    from octavo.models.weights import WeightSource


def read_config(path: Path) -> TransformerConfig:
    """What a model is, without reading its weights and without torch. Raises a ``ModelError``."""
    if _is_gguf(path):
        from octavo.models.gguf import read_gguf_config

        return read_gguf_config(path)
    from octavo.models.safetensors import read_folder_config

    return read_folder_config(path)


def open_weights(path: Path) -> WeightSource:
    """The weights of a model, read lazily; the caller closes them."""
    if _is_gguf(path):
        from octavo.models.gguf import GGUFWeights

        return GGUFWeights(path)
    from octavo.models.safetensors import SafetensorsWeights

    return SafetensorsWeights(path)


def load_model(path: Path, dtype: torch.dtype, device: torch.device) -> Transformer:
    """Load a model, its weights converted to ``dtype`` on ``device``.

    Raises ``WeightFormatError`` (broken or contradictory files, before the weights are allocated),
    ``UnsupportedModelError``, ``ModelNotFoundError``.
    """
    from octavo.models.assemble import assemble

    with closing(open_weights(path)) as source:
        return assemble(source, dtype, device)


def load_packed(path: Path, weights: str = "stored", cache: Path | None = None) -> PackedModel:
    """Load a model for the native CPU kernels, without torch. ``cache``: where packed models are kept; None: pack it anew.

    Raises as ``load_model`` does; ``UnsupportedModelError`` also for a tensor type that the kernels have no format for, and
    ``OSError`` where the native library is missing.
    """
    from octavo.models.packed_cache import cached

    def pack() -> PackedModel:
        from octavo.models.pack import pack_model

        with closing(open_weights(path)) as source:
            return pack_model(source, weights)

    _is_gguf(path)  # refuses what is no model
    return cached(path, weights, cache, pack) if cache else pack()


def _is_gguf(path: Path) -> bool:
    if path.is_dir():
        return False
    if path.is_file() and path.suffix.lower() == ".gguf":
        return True
    raise ModelNotFoundError(f"{path} is neither a model folder nor a .gguf file")
