"""Test inputs of ``add_rms_norm``: those of ``rms_norm``, with a residual."""

from __future__ import annotations

from octavo.kernels.rms_norm.inputs import SHAPES, inputs_for

INPUTS = inputs_for(SHAPES, "x", "residual", "weight")
