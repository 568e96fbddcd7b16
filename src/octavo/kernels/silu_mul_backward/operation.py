"""The operation ``K.silu_mul_backward(grad, x, act)`` -> gradient of ``x``: schema, reference, back ends."""

from __future__ import annotations

from octavo.kernels.operation import Operation
from octavo.kernels.silu_mul.checks import check_backward, meta_backward
from octavo.kernels.silu_mul.reference import silu_mul_backward_reference

OPERATION = Operation(
    name="silu_mul_backward",
    schema='(Tensor grad, Tensor x, str act="silu") -> Tensor',
    summary="the gradient of sum(grad * silu_mul(x)) by x",
    check=check_backward,
    meta=meta_backward,
    reference=silu_mul_backward_reference,
    backends={
        "torch": "octavo.kernels.silu_mul.cpu:silu_mul_backward",
        "triton": "octavo.kernels.silu_mul.triton:silu_mul_backward",
    },
    by_device={"cpu": "torch", "cuda": "triton"},
)
