"""Test inputs of ``quantize_int8``: those of ``quantize_fp8``."""

from __future__ import annotations

from octavo.kernels.quantize_fp8.inputs import INPUTS

__all__ = ["INPUTS"]
