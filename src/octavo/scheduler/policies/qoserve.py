"""QoServe: hybrid of earliest deadline and shortest work, dynamic chunk size, late requests deferred.

Niyama (Goel et al., arXiv 2503.22562), published as QoServe (ASPLOS 2026):

- hybrid order: due time + alpha x prefill tokens, where alpha is 0 (earliest deadline first) until the queue grows, then large
  (shortest remaining prefill first);
- dynamic chunk: the step may take as long as the tightest decode's next token allows;
- eager relegation: a request that cannot make its first token any more is served when nobody else waits.

Deviations: alpha has two values with hysteresis instead of a profiled curve; step times come from this house's forecast
instead of a random forest; deadlines of output tokens count from the first token (see ``deadlines``); the paper's
low-importance hints are not modelled.
"""

from __future__ import annotations

from collections.abc import Sequence

from octavo.scheduler.deadlines import first_token_due, time_left
from octavo.scheduler.forecast import Forecast
from octavo.scheduler.policies.fcfs import Fcfs
from octavo.scheduler.policy import Rank
from octavo.scheduler.queue import SortedLine
from octavo.scheduler.step_time import StepLoad
from octavo.types import Request

ALPHA_S = 0.008  # seconds of deadline per prefill token when the queue is long
LONG_S, SHORT_S = 0.5, 0.1  # prefill time in the queue at which alpha is switched on, and off again
NO_TARGET_S = 60.0  # when a request without a deadline counts as due, unless its class has a max_wait
MIN_CHUNK = 16


class QoServe(Fcfs):
    """Two lines: those that can be on time, and the relegated."""

    static = False

    def __init__(self, forecast: Forecast) -> None:
        super().__init__(forecast)
        self._relegated = SortedLine()
        self._due: dict[str, float] = {}
        self._alpha_s = 0.0
        self._queued_tokens = 0

    def add(self, request: Request, now: float) -> None:
        self._queued_tokens += len(request.token_ids)
        targets = request.service_class
        allowed = [targets.ttft_s, targets.max_wait_s, NO_TARGET_S]
        self._due[request.request_id] = request.arrival_s + next(s for s in allowed if s is not None)
        self._line.add(request, self._key(request))

    def remove(self, request: Request, now: float) -> None:
        self._queued_tokens -= len(request.token_ids)
        (self._relegated if request in self._relegated else self._line).remove(request)

    def first(self, now: float) -> Request | None:
        self._switch_alpha()
        while (head := self._line.first()) is not None and self._is_hopeless(head, now):
            self._line.remove(head)
            self._relegated.add(head, (head.arrival_s, head.sequence_number))
        return head or self._relegated.first()

    def rank(self, request: Request, now: float) -> Rank:
        late = request.first_token_s is None and (request in self._relegated or self._is_hopeless(request, now))
        due = self._due[request.request_id] + self._alpha_s * request.num_prompt_tokens
        return (late, due, request.sequence_number)

    def ended(self, request: Request, now: float) -> None:
        del self._due[request.request_id]

    def token_budget(
        self, decodes: Sequence[Request], prefills: Sequence[Request], max_step_tokens: int, now: float
    ) -> int:
        step_time = self.forecast.step_time
        if not step_time.ready:
            return max_step_tokens
        load = StepLoad(0, len(decodes), sum(request.num_planned_tokens for request in decodes))
        start = prefills[0].num_planned_tokens if prefills else 0
        room = step_time.prefill_room(time_left(decodes, self.forecast, now), load, start)
        return len(decodes) + max(MIN_CHUNK, room)

    def _key(self, request: Request) -> Rank:
        due = self._due[request.request_id] + self._alpha_s * request.num_prompt_tokens
        return (due, request.sequence_number)

    def _is_hopeless(self, request: Request, now: float) -> bool:
        """Its first token is not out, and a step with its prefill alone would end after it is due."""
        if request.first_token_s is not None:
            return False
        return now + self._prefill_s(len(request.token_ids) - request.num_planned_tokens) > first_token_due(request)

    def _prefill_s(self, num_tokens: int) -> float:
        step_time = self.forecast.step_time
        return step_time.seconds(StepLoad(num_tokens)) if step_time.ready else 0.0

    def _switch_alpha(self) -> None:
        queued_s = self._prefill_s(self._queued_tokens)
        alpha_s = self._alpha_s
        if queued_s > LONG_S:
            alpha_s = ALPHA_S
        elif queued_s < SHORT_S:
            alpha_s = 0.0
        if alpha_s != self._alpha_s:
            self._alpha_s = alpha_s
            requests, self._line = list(self._line), SortedLine()
            for request in requests:
                self._line.add(request, self._key(request))
