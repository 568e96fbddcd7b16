"""``int4_gemm(x, packed, scale, minimum, group)``: a product with a weight of 4-bit numbers."""
