"""``vector_add(a, b)``: elementwise sum at memory bandwidth; the simplest CUDA operation."""
