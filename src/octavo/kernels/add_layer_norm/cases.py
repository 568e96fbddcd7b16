"""The cases of ``layer_norm``, with a residual; a mean far larger than the spread is lost where the sum is rounded."""

from __future__ import annotations

from octavo.kernels.layer_norm.cases import SHAPES
from octavo.kernels.rms_norm.cases import cases

CASES = cases([shape for shape in SHAPES if not shape.shift], "x", "residual", "weight", "bias")
