"""``vector_add(a, b)``: the first CUDA kernel that anybody writes, at the speed of the memory."""
