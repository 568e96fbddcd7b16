"""Counter-based random numbers of sampling: one uniform per (request seed, output position).

A counter-based generator: no state to carry, so a request draws the same numbers alone, in any batch, and again after
preemption. The mixer is the finalizer of SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number
generators", OOPSLA 2014), applied to the seed and then to the counter.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from octavo.executor.requests import RequestState

GOLDEN_GAMMA = np.uint64(0x9E3779B97F4A7C15)
MASK_64 = 2**64 - 1


def uniforms(requests: Sequence[RequestState]) -> NDArray[np.float64]:
    """One number in [0, 1) for each request's next token."""
    seeds = np.array([request_seed(request) for request in requests], dtype=np.uint64)
    indices = np.array([request.num_output_tokens for request in requests], dtype=np.uint64)
    return uniform(seeds, indices)


def request_seed(request: RequestState) -> int:
    """The request's own seed modulo 2**64; without one, a hash of its id."""
    seed = request.params.seed
    return zlib.crc32(request.request_id.encode()) if seed is None else seed & MASK_64


def uniform(seeds: NDArray[np.uint64], indices: NDArray[np.uint64]) -> NDArray[np.float64]:
    """The ``indices``-th number of each seed's stream: 53 random bits in [0, 1). Arithmetic is modulo 2**64."""
    with np.errstate(over="ignore"):
        keys = _mix(seeds + GOLDEN_GAMMA)
        bits = _mix(keys + (indices + np.uint64(1)) * GOLDEN_GAMMA)
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _mix(z: NDArray[np.uint64]) -> NDArray[np.uint64]:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
