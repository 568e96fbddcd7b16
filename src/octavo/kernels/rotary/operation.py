"""The operation ``K.rotary(x, cos, sin)``: schema, reference, back ends."""

from __future__ import annotations

from octavo.kernels.operation import Operation
from octavo.kernels.rotary.checks import check, meta
from octavo.kernels.rotary.reference import rotary_reference

OPERATION = Operation(
    name="rotary",
    schema="(Tensor x, Tensor cos, Tensor sin) -> Tensor",
    summary="pairs (x[d], x[d + R/2]) rotated by their angles (half-split layout)",
    check=check,
    meta=meta,
    reference=rotary_reference,
    backends={"torch": "octavo.kernels.rotary.cpu:rotary", "triton": "octavo.kernels.rotary.triton:rotary"},
    by_device={"cpu": "torch", "cuda": "triton"},
    backward="octavo.kernels.rotary.autograd:register",
)
