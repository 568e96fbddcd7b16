"""The operation ``K.layer_norm(x, weight, bias, eps)``: schema, reference, back ends."""

from __future__ import annotations

from octavo.kernels.layer_norm.checks import check, meta
from octavo.kernels.layer_norm.reference import layer_norm_reference
from octavo.kernels.operation import Operation

OPERATION = Operation(
    name="layer_norm",
    schema="(Tensor x, Tensor weight, Tensor? bias=None, float eps=1e-5) -> Tensor",
    summary="(x - mean(x)) / sqrt(var(x) + eps) * weight + bias",
    check=check,
    meta=meta,
    reference=layer_norm_reference,
    backends={
        "torch": "octavo.kernels.layer_norm.cpu:layer_norm",
        "triton": "octavo.kernels.layer_norm.triton:layer_norm",
    },
    by_device={"cpu": "torch", "cuda": "triton"},
    backward="octavo.kernels.layer_norm.autograd:register",
)
