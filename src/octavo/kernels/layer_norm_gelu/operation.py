"""The operation ``K.layer_norm_gelu(x, weight, bias, eps, approximate)``: schema, reference, back ends."""

from __future__ import annotations

from octavo.kernels.layer_norm_gelu.checks import check, meta
from octavo.kernels.layer_norm_gelu.reference import layer_norm_gelu_reference
from octavo.kernels.operation import Operation

OPERATION = Operation(
    name="layer_norm_gelu",
    schema='(Tensor x, Tensor weight, Tensor bias, float eps=1e-05, str approximate="none") -> Tensor',
    summary="gelu(layer_norm(x))",
    check=check,
    meta=meta,
    reference=layer_norm_gelu_reference,
    backends={
        "torch": "octavo.kernels.layer_norm_gelu.cpu:layer_norm_gelu",
        "cuda": "octavo.kernels.layer_norm_gelu.cuda:layer_norm_gelu",
    },
    by_device={"cpu": "torch", "cuda": "cuda"},
)
