"""The cases of ``rms_norm`` without heads, and rows whose mean is far larger than their spread."""

from __future__ import annotations

import torch

from octavo.kernels.rms_norm import cases as rms_norm
from octavo.kernels.rms_norm.cases import Shape, cases

SHAPES = (
    *(shape for shape in rms_norm.SHAPES if not shape.heads),
    Shape((6, 333), torch.float16, shift=100.0),
)
CASES = cases(SHAPES, "x", "weight", "bias") + cases((Shape((9, 80), torch.float32),), "x", "weight")
