"""Rates over the steady-state window: requests and tokens per second, from when they arrived at the client."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from octavo.bench.statistics.dependence import Array
from octavo.bench.statistics.mean import mean_interval
from octavo.bench.types import Interval, RequestRecord

EVENTS_PER_BIN = 4
FEWEST_BINS = 10
MOST_BINS = 200


@dataclass(frozen=True)
class Window:
    """The part of a run that rates are taken over, seconds since its start."""

    start_s: float
    end_s: float

    @property
    def length_s(self) -> float:
        return self.end_s - self.start_s


def steady_window(counted: Sequence[RequestRecord], answered: Sequence[RequestRecord], warm_up_s: float) -> Window:
    """From the end of the warm-up to the last intended send: what ends later ends in a system that runs empty. A run that did
    less than half of its work by then (one burst) is taken to its last response instead."""
    due = [one.intended_s for one in counted]
    ends = [one.end_s for one in answered if one.end_s is not None]
    start_s = max(warm_up_s, min(due, default=0.0))
    end_s = max(due, default=0.0)
    if ends and sum(end <= end_s for end in ends) < len(ends) / 2:
        end_s = max(ends)
    return Window(start_s, end_s)


@dataclass(frozen=True)
class Arrivals:
    """What came and when: parallel arrays of seconds and amounts."""

    times_s: Array
    amounts: Array

    def rate(self, window: Window, seed: int) -> Interval:
        """Amount per second in the window; the interval from the means over equal bins of it. All None for an empty window."""
        if window.length_s <= 0:
            return Interval(None, None, None)
        num_bins = int(np.clip(len(self.times_s) // EVENTS_PER_BIN, FEWEST_BINS, MOST_BINS))
        bins = (window.start_s, window.end_s)
        sums = np.histogram(self.times_s, bins=num_bins, range=bins, weights=self.amounts)[0].astype(np.float64)
        found = mean_interval(sums * (num_bins / window.length_s), seed)
        low = None if found.low is None else max(0.0, found.low)
        return Interval(found.value, low, found.high)


def request_arrivals(records: Sequence[RequestRecord]) -> Arrivals:
    """One per answered request, at its end."""
    times = np.array([one.end_s for one in records if one.end_s is not None], dtype=np.float64)
    return Arrivals(times, np.ones(len(times)))


def num_output_tokens(record: RequestRecord) -> int:
    """The server's usage; where it sends none, the tokens of the chunks."""
    return sum(record.chunk_tokens) if record.output_tokens is None else record.output_tokens


def output_arrivals(records: Sequence[RequestRecord]) -> Arrivals:
    """Output tokens when their chunk came, scaled so that they add up to the server's usage; all at the end without chunks."""
    times: list[float] = []
    amounts: list[float] = []
    for one in records:
        total, streamed = num_output_tokens(one), sum(one.chunk_tokens)
        if streamed > 0:
            times += one.chunk_s
            amounts += [tokens * total / streamed for tokens in one.chunk_tokens]
        elif one.end_s is not None:
            times.append(one.end_s)
            amounts.append(total)
    return Arrivals(np.array(times, dtype=np.float64), np.array(amounts, dtype=np.float64))


def total_arrivals(records: Sequence[RequestRecord]) -> Arrivals:
    """Output tokens, and the prompt's when the first output token showed that it had been read."""
    output = output_arrivals(records)
    read = [
        (when, float(one.prompt_tokens))
        for one in records
        if one.prompt_tokens and (when := one.end_s if one.first_token_s is None else one.first_token_s) is not None
    ]
    prompts = np.array(read, dtype=np.float64).reshape(-1, 2)
    times = np.concatenate((output.times_s, prompts[:, 0]))
    return Arrivals(times, np.concatenate((output.amounts, prompts[:, 1])))
