"""Registry of the operations, by name; ``operation(name)`` loads the folder that the line names."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from octavo.kernels.operation import Operation

NAMES: tuple[str, ...] = (
    "sampling",
    "penalties",
    "logprobs",
    "rotary",
    "rotary_write_kv",
    "silu_mul",
    "silu_mul_backward",
    "add_layer_norm",
    "layer_norm",
    "layer_norm_backward",
    "layer_norm_gelu",
    "add_rms_norm",
    "rms_norm_backward",
    "fp8_gemm",
    "fused_gemm",
    "group_gemm",
    "int4_gemm",
    "int8_gemm",
    "linear",
    "matmul",
    "paged_attention",
    "quantize_fp8",
    "quantize_int8",
    "reduce",
    "rms_norm",
    "vector_add",
    "softmax",
)


def operation(name: str) -> Operation:
    """What ``kernels/<name>/operation.py`` states; ``ValueError`` with the list for a name that is none."""
    if name not in NAMES:
        raise ValueError(f"unknown operation {name!r}; known: {', '.join(sorted(NAMES))}")
    found: Operation = import_module(f"octavo.kernels.{name}.operation").OPERATION
    return found
