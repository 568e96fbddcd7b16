"""Native CPU kernels: one C library for a whole step, its build and its loader."""
