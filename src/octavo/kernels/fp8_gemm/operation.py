"""The operation ``K.fp8_gemm(a, b, a_scale, b_scale)``: schema, reference, back ends."""

from __future__ import annotations

from octavo.kernels.fp8_gemm.checks import check, meta
from octavo.kernels.fp8_gemm.reference import fp8_gemm_reference
from octavo.kernels.operation import Operation

OPERATION = Operation(
    name="fp8_gemm",
    schema="(Tensor a, Tensor b, Tensor a_scale, Tensor b_scale, ScalarType? dtype=None) -> Tensor",
    summary="a @ b.T of e4m3 matrices with scales per row, or per 1x128 and 128x128 block",
    check=check,
    meta=meta,
    reference=fp8_gemm_reference,
    backends={
        "torch": "octavo.kernels.fp8_gemm.cpu:fp8_gemm",
        "triton": "octavo.kernels.fp8_gemm.triton:fp8_gemm",
    },
    by_device={"cpu": "torch", "cuda": "triton"},
)
