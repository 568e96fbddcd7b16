"""Test inputs of ``rms_norm_backward``: those of ``rms_norm`` with gradients of the output, some also of the sum."""

from __future__ import annotations

import torch

from octavo.kernels.rms_norm.inputs import SHAPES, Shape, inputs_for

MANY_ROWS = (Shape((300, 33), torch.float32), Shape((40, 3, 16), torch.float32, heads=True))
INPUTS = inputs_for((*SHAPES, *MANY_ROWS), "grad", "x", "weight") + inputs_for(
    (Shape((11, 96), torch.float32), Shape((70, 130), torch.bfloat16)), "grad", "x", "weight", "grad_sum"
)
