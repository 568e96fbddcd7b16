"""The cases of ``rms_norm``, with a residual."""

from __future__ import annotations

from octavo.kernels.rms_norm.cases import SHAPES, cases

CASES = cases(SHAPES, "x", "residual", "weight")
