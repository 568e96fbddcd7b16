"""The operation ``K.rotary_write_kv``: rotated queries returned; rotated keys and values written to the paged cache."""

from __future__ import annotations

from octavo.kernels.operation import Operation
from octavo.kernels.rotary.checks import check_write_kv, meta_write_kv
from octavo.kernels.rotary.reference import rotary_write_kv_reference

OPERATION = Operation(
    name="rotary_write_kv",
    schema="(Tensor q, Tensor k, Tensor v, Tensor cos, Tensor sin, Tensor(a!) keys, Tensor(b!) values, Tensor slots, "
    "Tensor? key_scale=None, Tensor? value_scale=None) -> Tensor",
    summary="rotary(q); rotary(k) and v into their slots of the paged cache",
    check=check_write_kv,
    meta=meta_write_kv,
    reference=rotary_write_kv_reference,
    backends={
        "torch": "octavo.kernels.rotary.cpu:rotary_write_kv",
        "triton": "octavo.kernels.rotary.triton:rotary_write_kv",
    },
    by_device={"cpu": "torch", "cuda": "triton"},
)
