"""The operation ``K.softmax(x)``: schema, reference, back ends."""

from __future__ import annotations

from octavo.kernels.operation import Operation
from octavo.kernels.softmax.checks import check, meta
from octavo.kernels.softmax.reference import softmax_reference

OPERATION = Operation(
    name="softmax",
    schema="(Tensor x) -> Tensor",
    summary="exp(x - max) / sum(exp(x - max)) over the last dimension",
    check=check,
    meta=meta,
    reference=softmax_reference,
    backends={"torch": "octavo.kernels.softmax.cpu:softmax", "triton": "octavo.kernels.softmax.triton:softmax"},
    by_device={"cpu": "torch", "cuda": "triton"},
)
