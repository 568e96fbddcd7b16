"""Peak throughput of a task on all cores: independent threads side by side; the best short window counts.

Threads that wait for each other (as those of one parallel product do) show how busy a machine is, not how fast it can be:
when one of them is off its core, all of them stand. Here every thread repeats a piece of work of its own and notes when each
piece ended. With C(t), what all threads together had done by the time t (linear within a piece):

    rate of a window    (C(t + w) - C(t)) / w, w at least ``WINDOW_S`` and three pieces, at every t at which a piece ended

A piece during which a thread was interrupted counts with its whole time, so no window shows more than was done.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

import msgspec
import numpy as np

WINDOW_S = 0.005
PIECES_PER_WINDOW = 3
MIN_PIECES = 3  # of every thread, whatever the budget

Piece = Callable[[], object]


class Figure(msgspec.Struct, frozen=True):
    """Best, median and worst window of ``num_tries``, of the way and size that gave the best: named by ``way``."""

    best: float
    median: float
    worst: float
    num_tries: int
    way: str = ""


def throughput(workers: Sequence[Piece], amount: float, budget_s: float, way: str = "") -> Figure:
    """Run all workers at once, each over and over for ``budget_s``; ``amount`` is done by one call.

    What a worker raises is raised here. Calls must release the interpreter's lock while they work.
    """
    ends: list[list[float]] = [[] for _ in workers]
    errors: list[BaseException] = []
    ready = threading.Barrier(len(workers))

    def work(place: int, run: Piece) -> None:
        try:
            run()  # the first call prepares what it needs
            ready.wait()
            ends[place].append(time.perf_counter())
            until_s = ends[place][0] + budget_s
            while len(ends[place]) <= MIN_PIECES or ends[place][-1] < until_s:
                run()
                ends[place].append(time.perf_counter())
        except threading.BrokenBarrierError:
            pass  # another one failed
        except BaseException as error:
            errors.append(error)
            ready.abort()

    threads = [threading.Thread(target=work, args=one, daemon=True) for one in enumerate(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    rates = window_rates(ends, amount)
    return Figure(float(rates.max()), float(np.median(rates)), float(rates.min()), len(rates), way)


def window_rates(ends: Sequence[Sequence[float]], amount: float) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Rates of all windows while every worker was at it. ``ends``: of each worker its start, then the end of each piece."""
    start_s, end_s = max(one[0] for one in ends), min(one[-1] for one in ends)
    pieces = np.concatenate([np.diff(one) for one in ends])
    wanted_s = max(WINDOW_S, PIECES_PER_WINDOW * float(np.median(pieces)))
    window_s = min(wanted_s, end_s - start_s)
    times = np.unique(np.concatenate([np.asarray(one) for one in ends]))
    starts = times[(times >= start_s) & (times <= end_s - window_s)]
    if not len(starts):
        starts = np.array([start_s])

    pieces_in = np.zeros(len(starts))
    for one in ends:
        count = np.arange(len(one))
        pieces_in += np.interp(starts + window_s, one, count) - np.interp(starts, one, count)
    return pieces_in * amount / window_s
