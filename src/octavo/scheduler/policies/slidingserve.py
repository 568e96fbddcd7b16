"""SlidingServe: chunk sizes of two steps chosen together; a knapsack picks the requests to save.

SlidingServe (Chen et al., arXiv 2606.05933): a chunk as long as this step's deadlines allow may eat the time that the
next step needs. Three parts, as there:

- sliding chunker: a ternary search over this step's chunk x maximises x + y, where the next step's y must end before the
  tightest decode's token after next;
- priority sorter: on time before late, then due soonest, then least left to do;
- batch constructor: when those that are due cannot all be on time, a 0/1 knapsack picks the most valuable set that fits.

Deviations: the forecast of step times is this house's, not the paper's seven features by regime; the knapsack's value
is the class's weight, its capacity the prefill tokens until the last candidate is due.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import islice

from octavo.scheduler.deadlines import first_token_due, next_token_due, time_left
from octavo.scheduler.forecast import Forecast
from octavo.scheduler.policies.fcfs import Fcfs
from octavo.scheduler.policy import Rank
from octavo.scheduler.queue import SortedLine
from octavo.scheduler.step_time import StepLoad
from octavo.types import Request

CANDIDATES = 32  # of the knapsack
UNITS = 128  # into which its capacity is cut
MIN_CHUNK = 16


class SlidingServe(Fcfs):
    """Waiting requests in order of their due time; the late and those without an SLO behind, in order of arrival."""

    static = False

    def __init__(self, forecast: Forecast) -> None:
        super().__init__(forecast)
        self._late = SortedLine()
        self._tokens_per_s = math.inf
        self._saved: tuple[float, Request | None] = (-1.0, None)

    def add(self, request: Request, now: float) -> None:
        self._saved = (-1.0, None)
        if math.isinf(first_token_due(request)) or request.first_token_s is not None:
            self._late.add(request, (request.arrival_s, request.sequence_number))
        else:
            left = len(request.token_ids)
            self._line.add(request, (first_token_due(request), left, request.sequence_number))

    def remove(self, request: Request, now: float) -> None:
        self._saved = (-1.0, None)
        (self._late if request in self._late else self._line).remove(request)

    def first(self, now: float) -> Request | None:
        while (head := self._line.first()) is not None and first_token_due(head) <= now:
            self._line.remove(head)
            self._late.add(head, (head.arrival_s, head.sequence_number))
        if head is None:
            return self._late.first()
        if self._saved[0] != now:
            self._saved = (now, self._choose(now))
        return self._saved[1] or self._late.first() or head

    def rank(self, request: Request, now: float) -> Rank:
        due = first_token_due(request)
        late = request.first_token_s is None and due <= now
        return (late, due, len(request.token_ids) - request.num_planned_tokens, request.sequence_number)

    def token_budget(
        self, decodes: Sequence[Request], prefills: Sequence[Request], max_step_tokens: int, now: float
    ) -> int:
        step_time = self.forecast.step_time
        if not step_time.ready:
            return max_step_tokens
        load = StepLoad(0, len(decodes), sum(request.num_planned_tokens for request in decodes))
        this_s = time_left(decodes, self.forecast, now)
        tightest_s = min(
            (one.service_class.tpot_s or math.inf for one in decodes if next_token_due(one) < math.inf),
            default=math.inf,
        )
        chunk = self._chunk(load, this_s, this_s + tightest_s, max_step_tokens - len(decodes))
        seconds = step_time.seconds(load._replace(prefill_tokens=chunk))
        self._tokens_per_s = chunk / seconds if seconds > 0 else math.inf
        return len(decodes) + chunk

    def _chunk(self, load: StepLoad, this_s: float, both_s: float, most: int) -> int:
        """The x that maximises x + y; among equals the largest."""
        step_time = self.forecast.step_time
        low, high = MIN_CHUNK, max(MIN_CHUNK, min(step_time.prefill_room(this_s, load), most))

        def both(x: int) -> int:
            spent_s = step_time.seconds(load._replace(prefill_tokens=x, attended_pairs=0.5 * x * x))
            return x + min(step_time.prefill_room(both_s - spent_s, load), most)

        while high - low > 2:
            third = (high - low) // 3
            if both(low + third) <= both(high - third):
                low += third
            else:
                high -= third
        return max(range(low, high + 1), key=lambda x: (both(x), x))

    def _choose(self, now: float) -> Request | None:
        """The first, by due time, of the most valuable set that can be on time; None if none can."""
        candidates = list(islice(self._line, CANDIDATES))
        total = sum(len(one.token_ids) for one in candidates)
        capacity = (first_token_due(candidates[-1]) - now) * self._tokens_per_s
        if total <= capacity:
            return candidates[0]
        unit = capacity / UNITS
        sizes = [math.ceil(len(one.token_ids) / unit) if unit > 0 else UNITS + 1 for one in candidates]
        best: list[tuple[float, int]] = [(0.0, 0)] * (UNITS + 1)  # by capacity: value, members as bits
        for i, (request, size) in enumerate(zip(candidates, sizes, strict=True)):
            weight, bit = request.service_class.weight, 1 << i
            best[size:] = [
                (value + weight, members | bit) if value + weight > without[0] else without
                for (value, members), without in zip(best, best[size:], strict=False)
            ]
        members = best[UNITS][1]
        return next((one for i, one in enumerate(candidates) if members >> i & 1), None)
