"""Test inputs of ``silu_mul_backward``: those of ``silu_mul`` with gradients of the output."""

from __future__ import annotations

import torch

from octavo.kernels.operation import Inputs
from octavo.kernels.silu_mul.inputs import SHAPES, SMALL

INPUTS = tuple(
    Inputs(name, one.make_backward, small=torch.Size(one.size).numel() < SMALL) for name, one in SHAPES.items()
)
