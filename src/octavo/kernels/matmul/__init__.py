"""``matmul(a, b)``: dense matrix product; CUDA from naive to tensor cores in steps, Triton persistent."""
