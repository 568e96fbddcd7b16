"""Binomial check that a share of all requests stays under a limit, as in MLPerf Inference.

"p99 under 500 ms" is a statement on a share: at least 99 % of requests are under it. Of n, k were not. With confidence c the
share is at least p if P(Binomial(n, 1 - p) <= k) <= 1 - c (Clopper & Pearson 1934); MLPerf Inference (Reddi et al. 2020,
ISCA, on query counts) chooses n in the same way. It takes requests as independent; correlated ones say less than their number, so
here n and k are multiplied with what one request is ``worth``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from scipy import stats


@dataclass(frozen=True)
class ShareCheck:
    attained: bool  # shown with that confidence
    num_requests: int
    num_over: int  # over the limit, or without a response
    share_low: float  # lower confidence bound of the share under the limit
    num_needed: int  # requests that would show it, at the share that was observed; 0: no number would


def check_share(
    num_requests: int, num_over: int, share: float = 0.99, confidence: float = 0.95, *, worth: float = 1.0
) -> ShareCheck:
    """``share`` of requests under the limit, ``confidence`` one-sided. ``worth`` <= 1: independent requests that one is worth."""
    under, over = (num_requests - num_over) * worth, num_over * worth
    low = float(stats.beta.ppf(1 - confidence, under, over + 1)) if under > 0 else 0.0
    observed = num_over / num_requests if num_requests else 0.0
    needed = math.ceil(requests_needed(observed, share, confidence) / worth)
    return ShareCheck(low >= share, num_requests, num_over, low, needed)


def requests_needed(over_share: float, share: float = 0.99, confidence: float = 0.95) -> int:
    """How many requests show the SLO attained if ``over_share`` of them (rounded up) are over; 299 if none is (0.99^299 < 5 %).
    0 where no number would: the observed share itself violates it."""
    if over_share >= 1 - share:
        return 0

    def shown(size: int) -> bool:
        over = math.ceil(over_share * size - 1e-9)
        return over < size and float(stats.beta.ppf(1 - confidence, size - over, over + 1)) >= share

    high = 1
    while not shown(high):
        high *= 2
        if high > 1 << 40:
            return 0
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if shown(middle) else (middle, high)
    return high
