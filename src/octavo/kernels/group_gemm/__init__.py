"""``group_gemm(a, b, offsets)``: rows sorted by expert, each times its expert's weight."""
