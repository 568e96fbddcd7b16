"""The cases of ``layer_norm`` with derivatives of the output, and some with those of the sum."""

from __future__ import annotations

import torch

from octavo.kernels.layer_norm.cases import SHAPES
from octavo.kernels.rms_norm.cases import Shape, cases

CASES = cases((*SHAPES, Shape((300, 33), torch.float32)), "grad", "x", "weight") + cases(
    (Shape((11, 96), torch.float32), Shape((70, 130), torch.bfloat16)), "grad", "x", "weight", "grad_sum"
)
