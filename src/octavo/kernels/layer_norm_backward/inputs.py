"""Test inputs of ``layer_norm_backward``: those of ``layer_norm`` with gradients of the output, some also of the sum."""

from __future__ import annotations

import torch

from octavo.kernels.layer_norm.inputs import SHAPES
from octavo.kernels.rms_norm.inputs import Shape, inputs_for

INPUTS = inputs_for((*SHAPES, Shape((300, 33), torch.float32)), "grad", "x", "weight") + inputs_for(
    (Shape((11, 96), torch.float32), Shape((70, 130), torch.bfloat16)), "grad", "x", "weight", "grad_sum"
)
