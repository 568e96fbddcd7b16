"""The operation ``K.layer_norm_backward``: schema, reference, back ends."""

from __future__ import annotations

from octavo.kernels.layer_norm.checks import check_backward, meta_backward
from octavo.kernels.layer_norm.reference import layer_norm_backward_reference
from octavo.kernels.operation import Operation

OPERATION = Operation(
    name="layer_norm_backward",
    schema="(Tensor grad, Tensor x, Tensor weight, float eps=1e-5, Tensor? grad_sum=None) -> (Tensor, Tensor, Tensor)",
    summary="gradients of sum(grad * layer_norm(x)) + sum(grad_sum * x) by x, weight and bias",
    check=check_backward,
    meta=meta_backward,
    reference=layer_norm_backward_reference,
    backends={
        "torch": "octavo.kernels.layer_norm.cpu:layer_norm_backward",
        "triton": "octavo.kernels.layer_norm.triton:layer_norm_backward",
    },
    by_device={"cpu": "torch", "cuda": "triton"},
)
