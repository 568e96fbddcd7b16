"""``fused_gemm(a, b, bias, activation)``: the matrix product with bias and activation before the one write of the result."""
