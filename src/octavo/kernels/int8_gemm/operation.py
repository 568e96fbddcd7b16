"""The operation ``K.int8_gemm(a, b, a_scale, b_scale)``: schema, reference, back ends."""

from __future__ import annotations

from octavo.kernels.int8_gemm.checks import check, meta
from octavo.kernels.int8_gemm.reference import int8_gemm_reference
from octavo.kernels.operation import Operation

OPERATION = Operation(
    name="int8_gemm",
    schema="(Tensor a, Tensor b, Tensor a_scale, Tensor b_scale, ScalarType? dtype=None) -> Tensor",
    summary="a @ b.T of int8 matrices, exact sums, scales per row",
    check=check,
    meta=meta,
    reference=int8_gemm_reference,
    backends={
        "torch": "octavo.kernels.int8_gemm.cpu:int8_gemm",
        "triton": "octavo.kernels.int8_gemm.triton:int8_gemm",
    },
    by_device={"cpu": "torch", "cuda": "triton"},
)
