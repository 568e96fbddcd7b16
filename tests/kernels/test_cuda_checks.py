"""Bad input to the operations in CUDA C++: named, with what came and what was expected, before anything is launched."""

from __future__ import annotations

import pytest
import torch

import octavo.kernels.ops as K

X = torch.randn(4, 8)
HALF = X.bfloat16()
B = torch.randn(8, 6).bfloat16()


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: K.vector_add(X.int(), X.int()), TypeError, r"a: dtype int32 is not supported"),
        (lambda: K.vector_add(X, X[:2]), ValueError, r"b: shape \[2, 8\] came, \[4, 8\] was expected"),
        (lambda: K.vector_add(X, HALF), TypeError, r"b: dtype bfloat16 came, float32 was expected, that of a"),
        (lambda: K.vector_add(X.t(), X.t()), ValueError, r"a: strides .* are not contiguous"),
        (lambda: K.reduce(X.double()), TypeError, r"x: dtype float64 is not supported"),
        (lambda: K.reduce(torch.tensor(1.0), True), ValueError, r"x: no dimensions came"),
        (
            lambda: K.matmul(X, X),
            ValueError,
            r"b: shape \[4, 8\] came, \[8, \*\] was expected: \[K, N\] with the K of a",
        ),
        (lambda: K.matmul(X[0], X), ValueError, r"a: shape \[8\] came, \[M, K\] was expected"),
        (lambda: K.matmul(X, B), TypeError, r"b: dtype bfloat16 came, float32 was expected"),
        (lambda: K.matmul(X, torch.empty(8, 6, device="meta")), ValueError, r"b: on meta, but a is on cpu"),
        (lambda: K.fused_gemm(X, B), TypeError, r"a: dtype float32 is not supported; expected: bfloat16, float16"),
        (lambda: K.fused_gemm(HALF, B, B[0, :5]), ValueError, r"bias: shape \[5\] came, \[6\] was expected"),
        (lambda: K.fused_gemm(HALF, B, None, "relu"), ValueError, r"activation: 'relu' came, 'none' or 'gelu'"),
        (lambda: K.layer_norm_gelu(X, X[0, :7], X[0]), ValueError, r"weight: shape \[7\] came, \[8\] was expected"),
        (lambda: K.layer_norm_gelu(X, X[0], HALF[0]), TypeError, r"bias: dtype bfloat16 came, float32 was expected"),
        (lambda: K.layer_norm_gelu(X, X[0], X[0], -1.0), ValueError, r"eps: -1\.0 came"),
        (
            lambda: K.layer_norm_gelu(X, X[0], X[0], 1e-5, "erf"),
            ValueError,
            r"approximate: 'erf' came, 'none' or 'tanh'",
        ),
    ],
)
def test_bad_input_is_named(call, error, words):
    with pytest.raises(error, match=words):
        call()
