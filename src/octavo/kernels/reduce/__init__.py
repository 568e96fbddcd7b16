"""``reduce(x, last)``: sum of all elements or of each row; CUDA from the textbook tree to memory bandwidth in steps."""
