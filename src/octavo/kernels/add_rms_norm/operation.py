"""The operation ``K.add_rms_norm(x, residual, weight, eps)`` -> the normalised sum, and the sum."""

from __future__ import annotations

from octavo.kernels.operation import Operation
from octavo.kernels.rms_norm.checks import check_add, meta_add
from octavo.kernels.rms_norm.reference import add_rms_norm_reference

OPERATION = Operation(
    name="add_rms_norm",
    schema="(Tensor x, Tensor residual, Tensor weight, float eps=1e-6) -> (Tensor, Tensor)",
    summary="rms_norm(x + residual), x + residual",
    check=check_add,
    meta=meta_add,
    reference=add_rms_norm_reference,
    backends={
        "torch": "octavo.kernels.rms_norm.cpu:add_rms_norm",
        "triton": "octavo.kernels.rms_norm.triton:add_rms_norm",
    },
    by_device={"cpu": "torch", "cuda": "triton"},
    backward="octavo.kernels.rms_norm.autograd:register_add",
)
