"""Shared code of the GPU back ends: CUDA compilation and launch, emulation on a CPU, Triton helpers, tuned configurations."""
