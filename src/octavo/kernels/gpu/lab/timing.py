"""Timing of calls in turns: on a GPU by CUDA events, the L2 flushed before each call; on a CPU by its clock.

Kernel and baselines take turns within every round, so that a clock that falls or a neighbour that wakes up hits all alike.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

FLUSH_BYTES = 512 << 20  # several times any L2; writing it takes longer than Python takes to launch what follows
WARM_UPS = 3
MIN_ROUNDS, MAX_ROUNDS = 5, 100

Call = Callable[[], Any]


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds of one call: the median, and the 10 % and 90 % quantiles over ``rounds``."""

    median_s: float
    low_s: float
    high_s: float
    rounds: int


@dataclass(frozen=True, slots=True)
class Timed:
    """By name: the times of what ran, the words of what failed."""

    times: Mapping[str, Timing]
    errors: Mapping[str, str]


def summarise(seconds: list[float]) -> Timing:
    """At least two measurements."""
    tenths = statistics.quantiles(seconds, n=10, method="inclusive")
    return Timing(statistics.median(seconds), tenths[0], tenths[-1], len(seconds))


def measure(calls: Mapping[str, Call], device: torch.device, budget_s: float = 1.0) -> Timed:
    """Time each of ``calls`` in turns for about ``budget_s`` seconds; one that raises is left out and named.

    The first calls (compilation, allocation) are not counted. As many rounds as fit, between 5 and 100.
    """
    errors: dict[str, str] = {}
    running: dict[str, Call] = {}
    spent_s = 0.0
    for name, call in calls.items():
        try:
            for _ in range(WARM_UPS):
                call()
            synchronize(device)
            started = time.perf_counter()
            call()
            synchronize(device)
            spent_s += time.perf_counter() - started
            running[name] = call
        except Exception as error:  # whatever it is, the others are still worth timing
            errors[name] = one_line(error)
    if not running:
        return Timed({}, errors)
    rounds = int(min(MAX_ROUNDS, max(MIN_ROUNDS, budget_s / max(spent_s, 1e-6))))
    seconds = _on_gpu(running, device, rounds) if device.type == "cuda" else _on_cpu(running, rounds)
    return Timed({name: summarise(found) for name, found in seconds.items()}, errors)


def _on_gpu(calls: Mapping[str, Call], device: torch.device, rounds: int) -> dict[str, list[float]]:
    """Nothing waits for the GPU inside a round: while the flush runs, the call behind it is already queued."""
    flush = torch.empty(FLUSH_BYTES, dtype=torch.int8, device=device)
    events = {
        name: [tuple(torch.cuda.Event(enable_timing=True) for _ in "ab") for _ in range(rounds)]  # type: ignore[no-untyped-call]
        for name in calls
    }
    for i in range(rounds):
        for name, call in calls.items():
            start, end = events[name][i]
            flush.zero_()
            start.record()
            call()
            end.record()
        synchronize(device)  # between rounds only: the queue is bounded
    return {name: [start.elapsed_time(end) / 1e3 for start, end in pairs] for name, pairs in events.items()}


def _on_cpu(calls: Mapping[str, Call], rounds: int) -> dict[str, list[float]]:
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            started = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - started)
    return seconds


def dispatch_overhead(calls: Mapping[str, Call], device: torch.device, repetitions: int = 200) -> dict[str, float]:
    """Seconds that Python and PyTorch take to issue each call: on a GPU the launch returns before the kernel has run.

    The smallest of five means, in turns. Use tiny inputs: on a CPU the work itself is in it.
    """
    found = dict.fromkeys(calls, float("inf"))
    for _ in range(5):
        for name, call in calls.items():
            synchronize(device)
            started = time.perf_counter()
            for _ in range(repetitions):
                call()
            found[name] = min(found[name], (time.perf_counter() - started) / repetitions)
    synchronize(device)
    return found


def synchronize(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def one_line(error: BaseException, limit: int = 300) -> str:
    """``ValueError: x: shape ...``, as it goes into a results file."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:limit]
