"""The operation ``K.sampling(logits, seeds, positions, temperature, top_k, top_p, min_p)`` -> tokens."""

from __future__ import annotations

from octavo.kernels.operation import Operation
from octavo.kernels.sampling.checks import check, meta
from octavo.kernels.sampling.reference import sampling_reference

OPERATION = Operation(
    name="sampling",
    schema="(Tensor logits, Tensor seeds, Tensor positions, Tensor temperature, Tensor top_k, Tensor top_p, Tensor min_p) "
    "-> Tensor",
    summary="a token from each row's softmax, cut by top_k, min_p and top_p, by the number of (seed, position)",
    check=check,
    meta=meta,
    reference=sampling_reference,
    backends={"torch": "octavo.kernels.sampling.cpu:sampling", "triton": "octavo.kernels.sampling.triton:sampling"},
    by_device={"cpu": "torch", "cuda": "triton"},
)
