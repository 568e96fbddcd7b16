"""Test inputs of ``add_layer_norm``: those of ``layer_norm`` with a residual; means that rounding of the sum would lose."""

from __future__ import annotations

from octavo.kernels.layer_norm.inputs import SHAPES
from octavo.kernels.rms_norm.inputs import inputs_for

INPUTS = inputs_for([shape for shape in SHAPES if not shape.shift], "x", "residual", "weight", "bias")
