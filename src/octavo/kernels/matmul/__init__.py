"""``matmul(a, b)``: the matrix product; a ladder of CUDA steps from naive to tensor cores, and Triton's persistent one."""
