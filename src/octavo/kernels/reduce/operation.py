"""The operation ``K.reduce(x, last)``: schema, reference, back ends."""

from __future__ import annotations

from octavo.kernels.operation import Operation
from octavo.kernels.reduce.checks import check, meta
from octavo.kernels.reduce.reference import reduce_reference

OPERATION = Operation(
    name="reduce",
    schema="(Tensor x, bool last=False) -> Tensor",
    summary="the sum of x, or of each of its rows",
    check=check,
    meta=meta,
    reference=reduce_reference,
    backends={
        "torch": "octavo.kernels.reduce.cpu:reduce",
        "cuda_interleaved": "octavo.kernels.reduce.cuda:interleaved",
        "cuda_sequential": "octavo.kernels.reduce.cuda:sequential",
        "cuda_strided": "octavo.kernels.reduce.cuda:strided",
        "cuda_shuffle": "octavo.kernels.reduce.cuda:shuffle",
        "cuda": "octavo.kernels.reduce.cuda:packs",
    },
    by_device={"cpu": "torch", "cuda": "cuda"},
)
