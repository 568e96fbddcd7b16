"""The operation ``K.matmul(a, b)``: schema, reference, back ends."""

from __future__ import annotations

from octavo.kernels.matmul.checks import check, meta
from octavo.kernels.matmul.reference import matmul_reference
from octavo.kernels.operation import Operation

OPERATION = Operation(
    name="matmul",
    schema="(Tensor a, Tensor b) -> Tensor",
    summary="a @ b, summed in float32",
    check=check,
    meta=meta,
    reference=matmul_reference,
    backends={
        "torch": "octavo.kernels.matmul.cpu:matmul",
        "triton": "octavo.kernels.matmul.triton:matmul",
        "cuda_naive": "octavo.kernels.matmul.cuda:naive",
        "cuda_coalesced": "octavo.kernels.matmul.cuda:coalesced",
        "cuda_shared": "octavo.kernels.matmul.cuda:shared",
        "cuda_register": "octavo.kernels.matmul.cuda:register",
        "cuda_vector": "octavo.kernels.matmul.cuda:vector",
        "cuda_warp": "octavo.kernels.matmul.cuda:warp",
        "cuda_mma": "octavo.kernels.matmul.cuda:mma",
        "cuda_wgmma": "octavo.kernels.matmul.cuda:wgmma",
    },
    by_device={"cpu": "torch", "cuda": "triton"},
)
