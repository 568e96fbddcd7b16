"""The operation ``K.paged_attention``: schema, reference, back ends."""

from __future__ import annotations

from octavo.kernels.operation import Operation
from octavo.kernels.paged_attention.checks import check, meta
from octavo.kernels.paged_attention.reference import paged_attention_reference

OPERATION = Operation(
    name="paged_attention",
    schema="(Tensor q, Tensor keys, Tensor values, Tensor query_starts, Tensor context_lens, Tensor block_tables, "
    "SymInt num_decodes, SymInt max_context_len, float scale, int window=0, float soft_cap=0.0, Tensor? key_scale=None, "
    "Tensor? value_scale=None, int split_tokens=0, bool debug=False) -> Tensor",
    summary="softmax(scale * q k) v of ragged queries over a paged cache: decode and prefill alike",
    check=check,
    meta=meta,
    reference=paged_attention_reference,
    backends={
        "torch": "octavo.kernels.paged_attention.cpu:paged_attention",
        "triton": "octavo.kernels.paged_attention.triton:paged_attention",
        "cuda": "octavo.kernels.paged_attention.cuda:paged_attention",
    },
    by_device={"cpu": "torch", "cuda": "triton"},
)
