"""The cases of ``silu_mul`` with derivatives of the output."""

from __future__ import annotations

import torch

from octavo.kernels.operation import Case
from octavo.kernels.silu_mul.cases import SHAPES, SMALL

CASES = tuple(Case(name, one.make_backward, small=torch.Size(one.size).numel() < SMALL) for name, one in SHAPES.items())
