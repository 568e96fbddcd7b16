"""The operation ``K.penalties(logits, starts, tokens, counts, repetition, presence, frequency)``, in place."""

from __future__ import annotations

from octavo.kernels.operation import Operation
from octavo.kernels.sampling.checks import check_penalties, meta_penalties
from octavo.kernels.sampling.reference import penalties_reference

OPERATION = Operation(
    name="penalties",
    schema="(Tensor(a!) logits, Tensor starts, Tensor tokens, Tensor counts, Tensor repetition, Tensor presence, "
    "Tensor frequency) -> ()",
    summary="x / r if x > 0 else x * r, then - frequency * count - presence * (count > 0), for the tokens listed",
    check=check_penalties,
    meta=meta_penalties,
    reference=penalties_reference,
    backends={"torch": "octavo.kernels.sampling.cpu:penalties", "triton": "octavo.kernels.sampling.triton:penalties"},
    by_device={"cpu": "torch", "cuda": "triton"},
)
