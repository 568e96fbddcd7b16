"""RoPE settings: every spelling of ``config.json`` (linear, Llama 3 scaling), and the frequencies they mean. No torch.

transformers 5 writes ``rope_parameters`` (for Gemma 3 one per layer type), earlier versions ``rope_theta``,
``rope_scaling`` and ``rope_local_base_freq``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from octavo.errors import UnsupportedModelError
from octavo.models.config import RopeScaling, TransformerConfig

SUPPORTED = "default, linear, llama3"


def rope_fields(config: Mapping[str, Any]) -> dict[str, Any]:
    """``rope_theta``, ``rope_scaling`` and ``rope_local_theta`` of a ``TransformerConfig``."""
    parameters = config.get("rope_parameters") or {}
    local: Any = config.get("rope_local_base_freq")
    if "full_attention" in parameters:
        sliding = parameters.get("sliding_attention") or {}
        if _kind(sliding) != "default":
            raise UnsupportedModelError(f"RoPE type {_kind(sliding)!r} of the sliding layers is not supported")
        local, parameters = sliding.get("rope_theta", local), parameters["full_attention"]
    scaling = parameters if parameters else (config.get("rope_scaling") or {})
    if float(scaling.get("partial_rotary_factor") or config.get("partial_rotary_factor") or 1.0) != 1.0:
        raise UnsupportedModelError("partial_rotary_factor other than 1 is not supported")
    return {
        "rope_theta": float(parameters.get("rope_theta") or config.get("rope_theta") or 10000.0),
        "rope_local_theta": None if local is None else float(local),
        "rope_scaling": _scaling(scaling, config),
    }


def _kind(scaling: Mapping[str, Any]) -> str:
    return str(scaling.get("rope_type") or scaling.get("type") or "default")


def _scaling(scaling: Mapping[str, Any], config: Mapping[str, Any]) -> RopeScaling | None:
    kind = _kind(scaling)
    if kind == "default":
        return None
    if kind == "linear":
        return RopeScaling(kind=kind, factor=float(scaling["factor"]))
    if kind == "llama3":
        original = scaling.get("original_max_position_embeddings") or config["max_position_embeddings"]
        return RopeScaling(
            kind=kind,
            factor=float(scaling["factor"]),
            low_freq_factor=float(scaling["low_freq_factor"]),
            high_freq_factor=float(scaling["high_freq_factor"]),
            original_max_position=int(original),
        )
    raise UnsupportedModelError(f"RoPE type {kind!r} is not supported; supported: {SUPPORTED}")


def inverse_frequencies(config: TransformerConfig, *, windowed: bool) -> np.ndarray:
    """Radians per position for each of the ``head_dim / 2`` pairs, float64 ``[head_dim / 2]``.

    ``windowed``: for the layers with a sliding window, which in Gemma 3 have a theta of their own and no scaling.
    """
    theta, scaling = config.rope_theta, config.rope_scaling
    if windowed and config.rope_local_theta is not None:
        theta, scaling = config.rope_local_theta, None
    frequencies = theta ** -(np.arange(0, config.head_dim, 2, dtype=np.float64) / config.head_dim)
    if scaling is None:
        return frequencies
    if scaling.kind == "linear":
        return frequencies / scaling.factor
    if scaling.kind == "factors":
        return frequencies / np.asarray(scaling.factors, np.float64)
    return _llama3(frequencies, scaling)


def _llama3(frequencies: np.ndarray, scaling: RopeScaling) -> np.ndarray:
    """Llama 3.1's rule: waves shorter than the trained context stay, longer ones stretch, a ramp between.

    Grattafiori et al., "The Llama 3 Herd of Models" (2024), and the reference code published with it.
    """
    turns = scaling.original_max_position * frequencies / (2 * math.pi)  # full turns inside the trained context
    span = scaling.high_freq_factor - scaling.low_freq_factor
    keep = np.clip((turns - scaling.low_freq_factor) / span, 0.0, 1.0)
    stretched: np.ndarray = keep * frequencies + (1 - keep) * frequencies / scaling.factor
    return stretched
