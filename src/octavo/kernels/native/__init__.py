"""Native CPU kernels: a C++ library that runs a whole forward pass, its build, its loader and its ctypes bindings."""
