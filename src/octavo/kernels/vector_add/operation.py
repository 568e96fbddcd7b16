"""The operation ``K.vector_add(a, b)``: schema, reference, back ends."""

from __future__ import annotations

from octavo.kernels.operation import Operation
from octavo.kernels.vector_add.checks import check, meta
from octavo.kernels.vector_add.reference import vector_add_reference

OPERATION = Operation(
    name="vector_add",
    schema="(Tensor a, Tensor b) -> Tensor",
    summary="a + b",
    check=check,
    meta=meta,
    reference=vector_add_reference,
    backends={
        "torch": "octavo.kernels.vector_add.cpu:vector_add",
        "cuda": "octavo.kernels.vector_add.cuda:vector_add",
    },
    by_device={"cpu": "torch", "cuda": "cuda"},
)
