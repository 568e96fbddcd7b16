"""The inputs of ``quantize_fp8``."""

from __future__ import annotations

from octavo.kernels.quantize_fp8.cases import CASES

__all__ = ["CASES"]
