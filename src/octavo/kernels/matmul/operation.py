"""``K.matmul(a, b)``."""

from __future__ import annotations

from octavo.kernels.matmul.contract import check, fake
from octavo.kernels.matmul.reference import matmul_reference
from octavo.kernels.operation import Operation

OPERATION = Operation(
    name="matmul",
    schema="(Tensor a, Tensor b) -> Tensor",
    summary="a @ b, summed in float32",
    check=check,
    fake=fake,
    reference=matmul_reference,
    backends={
        "torch": "octavo.kernels.matmul.cpu:matmul",
        "triton": "octavo.kernels.matmul.triton:matmul",
    },
    by_device={"cpu": "torch", "cuda": "triton"},
)
