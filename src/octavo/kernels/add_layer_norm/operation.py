"""The operation ``K.add_layer_norm(x, residual, weight, bias, eps)`` -> the normalised sum, and the sum."""

from __future__ import annotations

from octavo.kernels.layer_norm.checks import check_add, meta_add
from octavo.kernels.layer_norm.reference import add_layer_norm_reference
from octavo.kernels.operation import Operation

OPERATION = Operation(
    name="add_layer_norm",
    schema="(Tensor x, Tensor residual, Tensor weight, Tensor? bias=None, float eps=1e-5) -> (Tensor, Tensor)",
    summary="layer_norm(x + residual), x + residual",
    check=check_add,
    meta=meta_add,
    reference=add_layer_norm_reference,
    backends={
        "torch": "octavo.kernels.layer_norm.cpu:add_layer_norm",
        "triton": "octavo.kernels.layer_norm.triton:add_layer_norm",
    },
    by_device={"cpu": "torch", "cuda": "triton"},
    backward="octavo.kernels.layer_norm.autograd:register_add",
)
