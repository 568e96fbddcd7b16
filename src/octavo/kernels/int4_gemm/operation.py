"""The operation ``K.int4_gemm(x, packed, scale, minimum, group)``: schema, reference, back ends."""

from __future__ import annotations

from octavo.kernels.int4_gemm.checks import check, meta
from octavo.kernels.int4_gemm.reference import int4_gemm_reference
from octavo.kernels.operation import Operation

OPERATION = Operation(
    name="int4_gemm",
    schema="(Tensor x, Tensor packed, Tensor scale, Tensor minimum, int group) -> Tensor",
    summary="x @ w.T with w of 4-bit numbers in groups of 32, 64 or 128, each with a scale and a minimum",
    check=check,
    meta=meta,
    reference=int4_gemm_reference,
    backends={
        "torch": "octavo.kernels.int4_gemm.cpu:int4_gemm",
        "triton": "octavo.kernels.int4_gemm.triton:int4_gemm",
    },
    by_device={"cpu": "torch", "cuda": "triton"},
)
