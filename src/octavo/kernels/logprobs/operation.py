"""The operation ``K.logprobs``: schema, reference, back ends."""

from __future__ import annotations

from octavo.kernels.operation import Operation
from octavo.kernels.sampling.checks import check_logprobs, meta_logprobs
from octavo.kernels.sampling.reference import logprobs_reference

OPERATION = Operation(
    name="logprobs",
    schema="(Tensor logits, Tensor tokens, int num_top=0) -> (Tensor, Tensor, Tensor)",
    summary="log softmax(logits) of the tokens, and of the num_top most likely",
    check=check_logprobs,
    meta=meta_logprobs,
    reference=logprobs_reference,
    backends={"torch": "octavo.kernels.sampling.cpu:logprobs", "triton": "octavo.kernels.sampling.triton:logprobs"},
    by_device={"cpu": "torch", "cuda": "triton"},
)
