"""Test inputs of ``rotary_write_kv``: those of ``rotary`` with a cache, and fp8 caches, where ties may round either way."""

from __future__ import annotations

from dataclasses import replace

import torch

from octavo.kernels.operation import Inputs, Tolerance
from octavo.kernels.rotary.inputs import SHAPES, Shape

STEP = Tolerance(2.0**-9, 0.126)  # of float8_e4m3fn

INPUTS = (
    *(Inputs(str(one), one.make_write_kv, small=one.rows < 1000) for one in SHAPES),
    *(
        Inputs(str(one), one.make_write_kv, STEP, small=one.rows < 1000)
        for one in (
            Shape(9, 4, 2, 64, 64, fp8=True),
            Shape(6, 9, 3, 80, 32, torch.bfloat16, fp8=True),
            replace(SHAPES[-1], fp8=True),
        )
    ),
)
