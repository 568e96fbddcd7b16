"""``fp8_gemm(a, b, a_scale, b_scale, dtype)``: a product of e4m3 matrices with scales per row or per block."""
