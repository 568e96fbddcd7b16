"""The operation ``K.rms_norm_backward``: schema, reference, back ends."""

from __future__ import annotations

from octavo.kernels.operation import Operation
from octavo.kernels.rms_norm.checks import check_backward, meta_backward
from octavo.kernels.rms_norm.reference import rms_norm_backward_reference

OPERATION = Operation(
    name="rms_norm_backward",
    schema="(Tensor grad, Tensor x, Tensor weight, float eps=1e-6, Tensor? grad_sum=None) -> (Tensor, Tensor)",
    summary="gradients of sum(grad * rms_norm(x)) + sum(grad_sum * x) by x and by weight",
    check=check_backward,
    meta=meta_backward,
    reference=rms_norm_backward_reference,
    backends={
        "torch": "octavo.kernels.rms_norm.cpu:rms_norm_backward",
        "triton": "octavo.kernels.rms_norm.triton:rms_norm_backward",
    },
    by_device={"cpu": "torch", "cuda": "triton"},
)
