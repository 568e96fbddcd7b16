"""The operation ``K.fused_gemm(a, b, bias, activation)``: schema, reference, back ends."""

from __future__ import annotations

from octavo.kernels.fused_gemm.checks import check, meta
from octavo.kernels.fused_gemm.reference import fused_gemm_reference
from octavo.kernels.operation import Operation

OPERATION = Operation(
    name="fused_gemm",
    schema='(Tensor a, Tensor b, Tensor? bias=None, str activation="none") -> Tensor',
    summary="activation(a @ b + bias)",
    check=check,
    meta=meta,
    reference=fused_gemm_reference,
    backends={
        "torch": "octavo.kernels.fused_gemm.cpu:fused_gemm",
        "cuda_mma": "octavo.kernels.fused_gemm.cuda:mma",
        "cuda": "octavo.kernels.fused_gemm.cuda:fused_gemm",
    },
    by_device={"cpu": "torch", "cuda": "cuda"},
)
