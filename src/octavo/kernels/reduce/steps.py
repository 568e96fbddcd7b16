"""Optimisation steps of ``reduce`` in CUDA, textbook tree to memory bandwidth, with predictions for an H200.

The limit: 1.07e9 bytes at 4.3 TB/s, what a copy reaches, are 0.25 ms.
"""

from __future__ import annotations

from octavo.kernels.operation import OptimisationStep

STEPS = (
    OptimisationStep(
        "interleaved tree",
        "one element a thread, neighbours are added in shared memory, every second thread drops out of each round",
        "instructions bound it: 8 rounds, in all of which all 8 warps of a block take part (a lane of each suffices to keep a "
        "warp), each about 20 instructions and a barrier: 8 warps x 8 x 20 = 1,280 issue slots for 256 elements, 5 an element; "
        "2^28 x 5 / (132 x 4 x 1.98e9) = 1.3 ms and the barriers' waits on top: 2 ms, an eighth of the limit",
        "cuda_interleaved",
    ),
    OptimisationStep(
        "sequential tree",
        "the first half of the threads adds the second half, so whole warps drop out and banks are not shared",
        "8 + 4 + 2 + 1 + 1 + 1 + 1 + 1 warps work instead of 64, but all meet at 8 barriers: about 2 times as fast, 1 ms",
        "cuda_sequential",
    ),
    OptimisationStep(
        "many elements a thread",
        "each thread adds its elements, a block's width apart, before the one tree of the block",
        "one addition and one 4-byte load an element, the trees vanish: 1,056 of them in all; 2,048 threads x 4 loads in "
        "flight x 4 bytes = 32 KB a multiprocessor, just what latency x bandwidth asks for (25 KB): 0.28 ms, 90 % of the limit; "
        "half of that for bfloat16, whose loads are 2 bytes",
        "cuda_strided",
    ),
    OptimisationStep(
        "warp shuffles",
        "the tree in registers: five shuffles and one barrier instead of eight rounds through shared memory",
        "nothing for 2^28 elements, whose trees have vanished already; for one element a thread it would count, and so it does "
        "for rows of a few thousand: 10 to 20 % there",
        "cuda_shuffle",
    ),
    OptimisationStep(
        "16 bytes a load, four in flight; a warp for a short row",
        "packs of 16 bytes past the cache's usual order, four loads before the first use, a quarter of the instructions",
        "128 KB in flight a multiprocessor: the memory is the bound, 0.25 ms; bfloat16 as fast by the byte",
        "cuda",
        kernel="reduce_packs",
    ),
)
