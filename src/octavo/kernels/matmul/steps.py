"""Optimisation steps of ``matmul`` in CUDA, three nested loops to Hopper's tensor cores, with predictions for an H200.

The limits: 2 * 4096^3 = 1.37e11 operations. float32: 132 multiprocessors x 128 multiply-adds x 1.98 GHz = 67 TFLOP/s, 2.1 ms.
bfloat16: 790 TFLOP/s, what cuBLAS reaches, 0.17 ms. Memory is none of them: 201 MB at 4.3 TB/s are 0.05 ms.
"""

from __future__ import annotations

from octavo.kernels.operation import OptimisationStep

STEPS = (
    OptimisationStep(
        "naive",
        "a thread computes an element; neighbouring threads take neighbouring rows",
        "a warp's load of a touches 32 rows, so 32 lines of the L1, at 2 a cycle 16 cycles: 16 x 2^31 warp-steps / (132 x "
        "1.98e9) = 131 ms, 1 TFLOP/s; half of that if the sectors fall out of the L1 before all 8 floats are used",
        "cuda_naive",
    ),
    OptimisationStep(
        "coalesced",
        "neighbouring threads take neighbouring columns",
        "1 sector of a, 4 of b: the lines are no longer the bound, the two load instructions for each multiply-add are, at about "
        "one a cycle: 2 cycles x 2^31 / (132 x 1.98e9) = 16 ms, 8 times as fast",
        "cuda_coalesced",
    ),
    OptimisationStep(
        "shared memory",
        "a block loads tiles of 32 x 32 once and reads them 32 times from shared memory",
        "global traffic falls by 32, but a multiply-add still needs two reads, now of shared memory (one of them 4 wide): "
        "1.25 reads at one warp-read a cycle, 10 ms, 1.6 times as fast",
        "cuda_shared",
    ),
    OptimisationStep(
        "registers",
        "tiles of 128 x 128 a block, 8 x 8 a thread",
        "16 reads serve 64 multiply-adds; those take 16 cycles of the multiprocessor's four quarters: arithmetic and reads are "
        "level, and loading is not overlapped with either: half the peak, 30 TFLOP/s, 4.5 ms",
        "cuda_register",
    ),
    OptimisationStep(
        "vectors and copies ahead",
        "128-bit reads; cp.async fills the next K tile of 16 while this one is multiplied",
        "16 reads serve 256 multiply-adds, and global latency is hidden: 60 % of the peak, 40 TFLOP/s, 3.4 ms",
        "cuda_vector",
    ),
    OptimisationStep(
        "warp tiles",
        "a warp covers 32 x 64 instead of 16 x 128, three K tiles in flight",
        "96 instead of 144 distinct floats a k from shared memory: a third fewer bank cycles: 70 % of the peak, 47 TFLOP/s, "
        "2.9 ms: 45 times the first step; cuBLAS reaches about 52",
        "cuda_warp",
    ),
    OptimisationStep(
        "tensor cores, mma.sync (bfloat16)",
        "a warp multiplies 16 x 8 x 16 in an instruction; ldmatrix from XOR-permuted shared memory, four K tiles in flight",
        "mma.sync reaches about 60 % of what wgmma does on Hopper; with K tiles of 32 k and a barrier each: 400 TFLOP/s, 0.34 ms",
        "cuda_mma",
    ),
    OptimisationStep(
        "wgmma and TMA (bfloat16, Hopper)",
        "four warps multiply 64 x 256 x 16 straight from shared memory, asynchronously; a warpgroup of its own asks the copy "
        "engine for K tiles of 64 k; blocks stay and take tile after tile",
        "128 x 256 a tile read 2 x (128 + 256) bytes a k from shared memory for 128 cycles x 4 of multiplying: not the bound; "
        "512 tiles on 132 multiprocessors are 3.9 rounds, 97 % of 4; the stores of a tile are not hidden (about 3 us of 45): "
        "650 TFLOP/s, 82 % of cuBLAS, 0.21 ms; 8192 cubed better, 700",
        "cuda_wgmma",
    ),
)
