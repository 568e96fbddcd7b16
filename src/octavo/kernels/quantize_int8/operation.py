"""The operation ``K.quantize_int8(x, group)``: schema, reference, back ends."""

from __future__ import annotations

from octavo.kernels.operation import Operation
from octavo.kernels.quantize_int8.checks import check, meta
from octavo.kernels.quantize_int8.reference import quantize_int8_reference

OPERATION = Operation(
    name="quantize_int8",
    schema="(Tensor x, int group=0) -> (Tensor, Tensor)",
    summary="x ~ scale * q with q in int8, a scale per row or per group of a row",
    check=check,
    meta=meta,
    reference=quantize_int8_reference,
    backends={
        "torch": "octavo.kernels.quantize_int8.cpu:quantize_int8",
        "triton": "octavo.kernels.quantize_int8.triton:quantize_int8",
    },
    by_device={"cpu": "torch", "cuda": "triton"},
)
