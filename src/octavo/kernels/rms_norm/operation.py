"""The operation ``K.rms_norm(x, weight, eps)``: schema, reference, back ends."""

from __future__ import annotations

from octavo.kernels.operation import Operation
from octavo.kernels.rms_norm.checks import check, meta
from octavo.kernels.rms_norm.reference import rms_norm_reference

OPERATION = Operation(
    name="rms_norm",
    schema="(Tensor x, Tensor weight, float eps=1e-6) -> Tensor",
    summary="x / sqrt(mean(x^2) + eps) * weight",
    check=check,
    meta=meta,
    reference=rms_norm_reference,
    backends={
        "torch": "octavo.kernels.rms_norm.cpu:rms_norm",
        "triton": "octavo.kernels.rms_norm.triton:rms_norm",
    },
    by_device={"cpu": "torch", "cuda": "triton"},
    backward="octavo.kernels.rms_norm.autograd:register",
)
