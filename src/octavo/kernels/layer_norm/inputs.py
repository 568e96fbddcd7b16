"""Test inputs of ``layer_norm``: those of ``rms_norm`` without heads, and rows whose mean is far larger than their spread."""

from __future__ import annotations

import torch

from octavo.kernels.rms_norm import inputs as rms_norm
from octavo.kernels.rms_norm.inputs import Shape, inputs_for

SHAPES = (
    *(shape for shape in rms_norm.SHAPES if not shape.heads),
    Shape((6, 333), torch.float16, shift=100.0),
)
INPUTS = inputs_for(SHAPES, "x", "weight", "bias") + inputs_for((Shape((9, 80), torch.float32),), "x", "weight")
