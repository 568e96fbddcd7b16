"""The operation ``K.linear(x, weight, bias)``: schema, reference, back ends."""

from __future__ import annotations

from octavo.kernels.linear.checks import check, meta
from octavo.kernels.linear.reference import linear_reference
from octavo.kernels.operation import Operation

OPERATION = Operation(
    name="linear",
    schema="(Tensor x, Tensor weight, Tensor? bias=None) -> Tensor",
    summary="x W^T + b",
    check=check,
    meta=meta,
    reference=linear_reference,
    backends={"torch": "octavo.kernels.linear.cpu:linear"},
    by_device={"cpu": "torch", "cuda": "torch"},
)
