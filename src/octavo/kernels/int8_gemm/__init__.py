"""``int8_gemm(a, b, a_scale, b_scale, dtype)``: an exact product of int8 matrices, scaled by row."""
