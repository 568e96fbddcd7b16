"""``slo``, Octavo's own policy: most SLOs attained, bounded waiting, fairness between tenants.

Who starts next, in this order, among tenants whose service is at most a fair lead (``FAIR_LEAD_TOKENS``,
``FAIR_LEAD_PROMPTS``, ``FAIR_LEAD_CACHE``) ahead of the least served one that waits:

1. *overdue*: work without an SLO (left to attain) whose ``max_wait`` is near. At most ``OVERDUE_SHARE`` of the prefill work
   goes here while others have SLOs to attain, so that overload does not turn the order into first come, first served;
2. *on time*: requests that can make their first token, earliest due first. If not all can, the largest set that can is
   kept: go through them by due time and, whenever one would be late, put the one with most work per weight aside
   (Moore 1968, Hodgson's algorithm, optimal for 1 || sum U_j). So the slack that decides is that of the whole queue
   ahead, not of one request. Long ones count as due a little later (``WORK_BIAS``): a long prefill that is begun early
   is lost work if shorter ones come and it has to be put aside;
3. *the rest*: SLOs that are violated already, the shortest first (an answer late by seconds is still worth more to somebody who
   watches), then best effort; among equals the least served tenant.

How much a step computes: as much as the time allows that the tightest TPOT target among the running requests leaves (their
mean time per token counts, so one that ran ahead can wait for a longer step), less a margin for the forecast's own
error.

A request on time whose slack is nearly gone takes the place of one of the rest. ``docs/scheduling.md`` states what
follows from this and ``tests/scheduler/test_machine.py`` checks it. Parts are known (QoServe's dynamic chunk, VTC's
counters); new are the exact choice of whom to give up, the waiting bound, and all of it together.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Sequence
from itertools import islice
from typing import NamedTuple

from octavo.scheduler.deadlines import PREFILL_SHARE, next_token_due, time_left, wait_due
from octavo.scheduler.forecast import Forecast
from octavo.scheduler.policies.fcfs import Fcfs
from octavo.scheduler.policy import Rank
from octavo.scheduler.queue import SortedLine
from octavo.scheduler.service import ServiceCounters
from octavo.scheduler.step_time import StepLoad
from octavo.types import Request

# Service that a tenant may be ahead of another that waits before deadlines stop counting for it: the largest of the three.
FAIR_LEAD_TOKENS = 16_384.0
FAIR_LEAD_PROMPTS = 4.0  # of the longest seen
FAIR_LEAD_CACHE = 1 / 16  # of the KV cache: the more a machine serves at once, the sooner a lead is caught up with
OVERDUE_SHARE = 0.25  # of the prefill tokens
OVERDUE_LEAD = 0.25  # of max_wait: so long before its end is a request overdue
MAX_WAIT_S = 60.0  # of a class that states none
WORK_BIAS = 2.0  # seconds that a second of prefill puts a request back among those due
LOOK_AHEAD = 64  # requests with an SLO, by due time, among which the largest feasible set is chosen
STEPS_PER_TTFT = (
    4.0  # a step takes at most this part of the shortest TTFT target, so that a new request is soon looked at
)
MIN_CHUNK = 16  # prefill tokens that a step always takes
RATE_MEMORY = 0.2

OVERDUE, ON_TIME, REST = 0, 1, 2


class SlackFirst(Fcfs):
    """One line by due time for those with an SLO, one a tenant, by the end of their waiting bound, for the rest."""

    static = False

    def __init__(self, forecast: Forecast) -> None:
        super().__init__(forecast)
        self.service = ServiceCounters()
        self.fair_lead_tokens = FAIR_LEAD_TOKENS
        self.fair_lead_prompts = FAIR_LEAD_PROMPTS
        self.fair_lead_cache = FAIR_LEAD_CACHE
        self._longest = 0
        self._rest: dict[str, SortedLine] = {}  # by the end of their waiting bound ...
        self._rest_by_target: dict[str, SortedLine] = {}  # ... and the same requests in the order in which they start
        self._work: dict[str, int] = {}  # tokens to compute before the next token, of those that wait
        self._order: dict[str, int] = {}  # those with an SLO that can be on time: who goes first, for one moment
        self._next: deque[Request] = deque()  # those of them that wait
        self._order_s = -math.inf
        self._prefills: list[Request] = []  # that run and whose first token is not late yet
        self._overdue_credit = 0.0  # prefill tokens that overdue requests may claim
        self._served_s: dict[str, float] = {}  # when a prefill last got tokens, of those that run
        self._tokens_per_s = math.inf
        shortest = min((one.ttft_s for one in forecast.classes if one.ttft_s is not None), default=math.inf)
        self._longest_step_s = shortest / STEPS_PER_TTFT

    # -- those that wait -----------------------------------------------------------------------------------------------

    def add(self, request: Request, now: float) -> None:
        self.service.waits(request.tenant)
        self._longest = max(self._longest, request.num_prompt_tokens)
        self._work[request.request_id] = len(request.token_ids) - self.forecast.cached_tokens(request)
        self._served_s.pop(request.request_id, None)
        due = next_token_due(request)
        if due > now and math.isfinite(due):
            self._line.add(request, (due, request.sequence_number))
            self._order_s = -math.inf
        else:
            self._put_with_rest(request)

    def remove(self, request: Request, now: float) -> None:
        self.service.waits_no_longer(request.tenant)
        del self._work[request.request_id]
        if request in self._line:
            self._line.remove(request)
            return
        for lines in (self._rest, self._rest_by_target):
            line = lines[request.tenant]
            line.remove(request)
            if not line:
                del lines[request.tenant]

    def first(self, now: float) -> Request | None:
        self._give_up_late(now)
        fair = self._fair_limit()
        overdue = [one for one in self._heads(self._rest, fair) if self._is_overdue(one, now)]
        if overdue and (self._overdue_credit >= 0.0 or not self._line):
            return min(overdue, key=_wait_due)
        kept = self._first_kept(fair, now)
        if kept is not None:
            return kept
        rest = self._heads(self._rest_by_target, fair)
        if rest:
            return min(rest, key=lambda one: (_target_s(one), self.service.of[one.tenant], one.sequence_number))
        return next((one for one in self._line if self.service.of[one.tenant] <= fair), None)

    def _heads(self, lines: dict[str, SortedLine], fair: float) -> list[Request]:
        """The first of every tenant that is not too far ahead."""
        heads = (line.first() for tenant, line in lines.items() if self.service.of[tenant] <= fair)
        return [one for one in heads if one is not None]

    def _fair_limit(self) -> float:
        """Service up to which a tenant may start requests."""
        by_prompts, by_cache = self.fair_lead_prompts * self._longest, self.fair_lead_cache * self.forecast.kv_tokens
        return self.service.least + max(self.fair_lead_tokens, by_prompts, by_cache)

    def _put_with_rest(self, request: Request) -> None:
        came, seniority = (
            request.sequence_number,
            request.arrival_s + _max_wait_s(request),
        )  # which preemption does not change
        ranks = (_wait_due(request), came), (_target_s(request), seniority, came)
        for lines, rank in zip((self._rest, self._rest_by_target), ranks, strict=True):
            lines.setdefault(request.tenant, SortedLine()).add(request, rank)

    def _give_up_late(self, now: float) -> None:
        """SLOs that are violated already: their requests join the rest."""
        while (head := self._line.first()) is not None and self._earliest(head, now) > next_token_due(head):
            self._line.remove(head)
            self._put_with_rest(head)

    def _earliest(self, request: Request, now: float) -> float:
        """When its next token would come if it had the machine alone."""
        step_time = self.forecast.step_time
        if not step_time.ready:
            return now
        return now + step_time.seconds(StepLoad(self._work[request.request_id]))

    def _first_kept(self, fair: float, now: float) -> Request | None:
        waiting = self._next
        while waiting and (waiting[0] not in self._line or self.service.of[waiting[0].tenant] > fair):
            waiting.popleft()
        if self._order_s != now:
            self._decide(fair, now)
        return self._next[0] if self._next else None

    def _decide(self, fair: float, now: float) -> None:
        """Whom to keep, in which order: prefills that run and the next ``LOOK_AHEAD`` due of tenants not too far ahead."""
        waiting = [one for one in islice(self._line, LOOK_AHEAD) if self.service.of[one.tenant] <= fair]
        tasks = [Task(one, self._work[one.request_id] / self._tokens_per_s, next_token_due(one)) for one in waiting]
        for one in self._prefills:
            if one.request_id not in self._work:  # it still runs
                left = len(one.token_ids) - one.num_planned_tokens
                tasks.append(Task(one, left / self._tokens_per_s, next_token_due(one)))
        tasks.sort(key=lambda task: task.due + WORK_BIAS * task.seconds)
        order = largest_on_time(tasks, now)
        self._order = {task.request.request_id: i for i, task in enumerate(order)}
        self._next = deque(task.request for task in order if task.request.request_id in self._work)
        self._order_s = now

    # -- those that run ------------------------------------------------------------------------------------------------

    def rank(self, request: Request, now: float) -> Rank:
        request_id = request.request_id
        if request.first_token_s is not None and request_id not in self._work and next_token_due(request) < math.inf:
            return (ON_TIME, -1, request.sequence_number)
        position = self._order.get(request_id)
        if position is not None:
            return (ON_TIME, position, request.sequence_number)
        waits = request_id in self._work
        is_overdue = self._is_overdue(request, now) if waits else self._is_idle(request, now)
        if is_overdue:
            return (OVERDUE, request.sequence_number)
        return (REST, _target_s(request), request.sequence_number)

    def token_budget(
        self, decodes: Sequence[Request], prefills: Sequence[Request], max_step_tokens: int, now: float
    ) -> int:
        step_time = self.forecast.step_time
        if not step_time.ready:
            return max_step_tokens
        load = StepLoad(0, len(decodes), sum(request.num_planned_tokens for request in decodes))
        left_s = min(time_left(decodes, self.forecast, now), self._longest_step_s)
        left_s *= 1.0 - min(0.3, 2.0 * step_time.error)
        left_s = max(left_s, (1.0 + PREFILL_SHARE) * step_time.seconds(load))
        start = prefills[0].num_planned_tokens if prefills else 0
        room = min(max(MIN_CHUNK, step_time.prefill_room(left_s, load, start)), max_step_tokens - len(decodes))
        self._foresee(room, load, prefills, now)
        return len(decodes) + room

    def may_preempt(self, waiting: Request, running: Request, now: float) -> bool:
        """Only from the rest, and only when it is about to be too late."""
        if self.rank(running, now)[0] != REST:
            return False
        if waiting not in self._line:
            return self._is_overdue(waiting, now)
        allowed_s = waiting.service_class.ttft_s or waiting.service_class.tpot_s or 0.0
        return self._earliest(waiting, now) + 0.5 * allowed_s > next_token_due(waiting)

    def _foresee(self, room: int, load: StepLoad, prefills: Sequence[Request], now: float) -> None:
        """How fast prefill goes now, and which prefills compete with those that wait."""
        self._prefills = [one for one in prefills if now < next_token_due(one) < math.inf]
        self._decide(self._fair_limit(), now)
        seconds = self.forecast.step_time.seconds(load._replace(prefill_tokens=room, attended_pairs=0.5 * room * room))
        if seconds > 0.0 and room > 0:  # decodes alone may fill a step: that says nothing of prefill
            rate = room / seconds
            known = math.isfinite(self._tokens_per_s)
            self._tokens_per_s += (RATE_MEMORY * (rate - self._tokens_per_s)) if known else 0.0
            self._tokens_per_s = self._tokens_per_s if known else rate

    def _is_overdue(self, request: Request, now: float) -> bool:
        return now >= _wait_due(request) - OVERDUE_LEAD * _max_wait_s(request)

    def _is_idle(self, request: Request, now: float) -> bool:
        """It runs and has had no tokens for so long that its waiting bound is near."""
        served_s = self._served_s.get(request.request_id, now)
        return now >= served_s + (1.0 - OVERDUE_LEAD) * _max_wait_s(request)

    # -- accounts ------------------------------------------------------------------------------------------------------

    def started(self, request: Request, now: float) -> None:
        self.service.started(request)
        self._served_s[request.request_id] = now
        if self._is_overdue(request, now):
            self._overdue_credit -= len(request.token_ids) - request.num_planned_tokens

    def committed(self, request: Request, num_tokens: int, num_sampled: int, now: float) -> None:
        self.service.committed(request, num_sampled)
        if num_tokens > 1:
            self._served_s[request.request_id] = now
            self._overdue_credit = min(self._overdue_credit + OVERDUE_SHARE * num_tokens, 0.0)
        elif request.first_token_s is None:
            self._served_s.pop(request.request_id, None)

    def ended(self, request: Request, now: float) -> None:
        self._served_s.pop(request.request_id, None)


class Task(NamedTuple):
    """A prefill that competes for the machine. A tuple because dozens are made in every step."""

    request: Request
    seconds: float
    due: float


def largest_on_time(tasks: Sequence[Task], now: float) -> list[Task]:
    """The largest set (with weights: a large one) that can all be on time one after the other, in the order given."""
    spent_s = 0.0
    heaviest: list[tuple[float, int, Task]] = []
    for i, task in enumerate(tasks):
        spent_s += task.seconds
        heapq.heappush(heaviest, (-task.seconds / task.request.service_class.weight, -i, task))
        if now + spent_s > task.due:
            spent_s -= heapq.heappop(heaviest)[2].seconds
    kept = {id(task) for _, _, task in heaviest}
    return [task for task in tasks if id(task) in kept]


def _max_wait_s(request: Request) -> float:
    return request.service_class.max_wait_s or MAX_WAIT_S


def _target_s(request: Request) -> float:
    """How soon its first token was to come, kept or not."""
    ttft_s = request.service_class.ttft_s
    return math.inf if ttft_s is None else ttft_s


def _wait_due(request: Request) -> float:
    return wait_due(request, MAX_WAIT_S)
