"""The operation ``K.group_gemm(a, b, offsets)``: schema, reference, back ends."""

from __future__ import annotations

from octavo.kernels.group_gemm.checks import check, meta
from octavo.kernels.group_gemm.reference import group_gemm_reference
from octavo.kernels.operation import Operation

OPERATION = Operation(
    name="group_gemm",
    schema="(Tensor a, Tensor b, Tensor offsets) -> Tensor",
    summary="a[t] @ b[e].T for the rows of each expert, which are neighbours",
    check=check,
    meta=meta,
    reference=group_gemm_reference,
    backends={
        "torch": "octavo.kernels.group_gemm.cpu:group_gemm",
        "triton": "octavo.kernels.group_gemm.triton:group_gemm",
    },
    by_device={"cpu": "torch", "cuda": "triton"},
)
