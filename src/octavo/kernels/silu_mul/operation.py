"""The operation ``K.silu_mul(x, act)``: schema, reference, back ends."""

from __future__ import annotations

from octavo.kernels.operation import Operation
from octavo.kernels.silu_mul.checks import check, meta
from octavo.kernels.silu_mul.reference import silu_mul_reference

OPERATION = Operation(
    name="silu_mul",
    schema='(Tensor x, str act="silu") -> Tensor',
    summary="act(gate) * up, where x holds the gates, then the ups; act: silu or gelu_tanh",
    check=check,
    meta=meta,
    reference=silu_mul_reference,
    backends={"torch": "octavo.kernels.silu_mul.cpu:silu_mul", "triton": "octavo.kernels.silu_mul.triton:silu_mul"},
    by_device={"cpu": "torch", "cuda": "triton"},
    backward="octavo.kernels.silu_mul.autograd:register",
)
