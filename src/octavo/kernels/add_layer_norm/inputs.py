"""The cases of ``layer_norm``, with a residual; a mean far larger than the spread is lost where the sum is rounded."""

from __future__ import annotations

from octavo.kernels.layer_norm.inputs import SHAPES
from octavo.kernels.rms_norm.inputs import inputs_for

INPUTS = inputs_for([shape for shape in SHAPES if not shape.shift], "x", "residual", "weight", "bias")
