"""The load generator: sends a plan at its intended times and collects the records. Callbacks on one event loop.

The timer of a request starts at its intended send time, whatever the client is doing then. Every request that was due ends
in exactly one record.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import NamedTuple

from octavo.bench.client.connection_pool import ConnectionPool, Dialer
from octavo.bench.client.health import Health, Stalls
from octavo.bench.client.journal import Journal
from octavo.bench.client.metrics import Scraper
from octavo.bench.client.options import ClientOptions
from octavo.bench.client.progress import Observer, Tally
from octavo.bench.client.response import Receiver, Response
from octavo.bench.client.schedule import Schedule
from octavo.bench.client.target import Prompt, RequestWriter
from octavo.bench.types import LoadPlan, Outcome, RequestRecord

TICK_S = 0.02  # timeouts, spare connections and stalls are looked at so often
STALL_S = 0.005  # a tick later than this is a stall
PROGRESS_S = 0.5
QUIET_S = 0.01  # observers are told when nothing is to be sent for so long, or when they have waited for long
EARLY_S = 1e-6  # a timer that fires by less too early has fired in time
BURST = 64  # requests sent in a row before the loop may read again
NOBODY_PAUSE_S = 0.1  # a closed loop's user knocks so often at a server that does not respond at all


class Wire(NamedTuple):
    """How requests reach the server: what opens connections, what writes a request's bytes."""

    dialer: Dialer
    writer: RequestWriter


class LoadGenerator:
    """One run of one plan. ``stop`` ends it early."""

    def __init__(
        self,
        plan: LoadPlan,
        wire: Wire,
        options: ClientOptions,
        journal: Journal,
        observer: Observer,
        clock: Callable[[], float],
    ) -> None:
        self._plan = plan
        self._writer = wire.writer
        self._options = options
        self._journal = journal
        self._observer = observer
        self._clock = clock
        self._zero_s = clock()
        self._schedule = Schedule(plan)
        self._pool = ConnectionPool(wire.dialer, options, self.now_s, self._on_ended)
        self.scraper = Scraper(wire.dialer, wire.writer, options, self.now_s)
        self._tally = Tally(len(plan.requests), plan.duration_s)
        self._prompts: dict[int, Prompt] = {}  # of turns whose turn before has ended
        self._in_flight: dict[Response, None] = {}  # in the order of sending
        self._loop = asyncio.get_running_loop()
        self._over: asyncio.Future[None] = self._loop.create_future()
        self._timer: asyncio.Handle | None = None
        self._armed_s = 0.0
        self._last_due_s = 0.0
        self._tick_due_s = 0.0
        self._tell_s = 0.0
        self._stopped: str | None = None
        self._stalls = Stalls()
        self.records: list[RequestRecord] = []
        self.duration_s = 0.0

    def now_s(self) -> float:
        """Seconds since the run's start."""
        return self._clock() - self._zero_s

    async def warm(self) -> None:
        """Open connections, so that the first requests need not wait for them."""
        users = self._plan.concurrency or 0
        await self._pool.warm(min(users + self._options.spare_connections, self._options.max_connections))

    async def run(self) -> None:
        """Until the plan's end, ``stop``, or the server's."""
        self._zero_s = self._clock()
        self._tick_due_s = TICK_S
        self._ticks = self._loop.call_later(TICK_S, self._tick)
        self._arm()
        self._check_over()
        try:
            await self._over
        except asyncio.CancelledError:
            self.stop("the run was cancelled")
            raise
        finally:
            self.duration_s = self.now_s()
            self._ticks.cancel()
            if self._timer is not None:
                self._timer.cancel()
            self._pool.close()
            self.scraper.close()
            self._journal.flush()

    def stop(self, reason: str) -> None:
        """Nothing more is sent; what is in flight is dropped as CANCELLED. The run is then invalid for this ``reason``."""
        self._stopped = self._stopped or reason
        self._schedule.stop()
        for response in list(self._in_flight):
            self._drop(response, Outcome.CANCELLED, reason)
        self._check_over()

    def health(self) -> Health:
        return Health(
            stalls=self._stalls,
            duration_s=self.duration_s,
            num_connections=self._pool.most_open,
            limit=self._pool.limit,
            stopped=self._stopped,
        )

    # sending

    def _arm(self) -> None:
        """Wake at the next due time; a little earlier and spinning from there where sends are rare."""
        due_s = self._schedule.due_s
        if self._timer is not None:
            if due_s == self._armed_s:
                return
            self._timer.cancel()
            self._timer = None
        if due_s is None:
            return
        spin_s = self._options.spin_s
        if due_s - self._last_due_s < 10 * spin_s:
            spin_s = 0.0  # spinning would take a tenth of a core and more
        delay_s = due_s - self.now_s() - spin_s
        self._armed_s = due_s
        if delay_s > 0:
            self._timer = self._loop.call_later(delay_s, self._wake)
        else:
            self._timer = self._loop.call_soon(self._wake)

    def _wake(self) -> None:
        self._timer = None
        try:
            self._send_due()
        except Exception as error:  # ours; in a callback it would only be logged, and the run would never end
            self._fail(error)

    def _send_due(self) -> None:
        until_s = self.now_s() + EARLY_S
        for _ in range(BURST):
            due = self._schedule.pop_due(until_s)
            if due is None:
                break
            self._send(*due)
        self._arm()

    def _send(self, intended_s: float, index: int) -> None:
        self._last_due_s = intended_s
        request = self._plan.requests[index]
        prompt = self._prompts.pop(index, None) or Prompt.of(request)
        response = Response(request, prompt, intended_s, keep_text=self._schedule.has_turns(index))
        data = self._writer.post(request, prompt)
        self._in_flight[response] = None
        self._tally.sent += 1
        response.record.sent_s = self.now_s()
        self._pool.submit(response, data)

    # ends

    def _on_ended(self, receiver: Receiver) -> None:
        assert isinstance(receiver, Response)
        if receiver not in self._in_flight:
            return
        del self._in_flight[receiver]
        self._keep(receiver.record)
        self._go_on(receiver)
        self._check_over()

    def _go_on(self, response: Response) -> None:
        """Whoever waited for this end: the next turn, the next request of this user."""
        record = response.record
        assert record.end_s is not None
        ok = record.outcome is Outcome.OK
        if ok:
            for turn in self._schedule.turns(record.index):
                self._prompts[turn] = response.prompt.then(response.text, self._plan.requests[turn])
        pause_s = NOBODY_PAUSE_S if not ok and record.status is None else 0.0
        for lost in self._schedule.ended(record.index, record.end_s, ok=ok, pause_s=pause_s):
            reason = f"not sent: request {record.index}, a turn before it, {record.outcome.value.replace('_', ' ')}"
            self._keep_unsent(lost, Outcome.CANCELLED, reason)
        self._arm()

    def _keep(self, record: RequestRecord) -> None:
        self.records.append(record)
        self._journal.add(record)
        self._tally.add(record)

    def _keep_unsent(self, index: int, outcome: Outcome, reason: str) -> None:
        request, planned_s, now_s = self._plan.requests[index], self._plan.send_s[index], self.now_s()
        at_s = now_s if planned_s is None else planned_s
        self._keep(
            RequestRecord(
                index=index,
                intended_s=at_s,
                sent_s=at_s,
                end_s=at_s,
                outcome=outcome,
                error=reason,
                tenant=request.tenant,
                service_class=request.service_class,
                slo=request.slo,
                not_sent=True,
            )
        )

    def _drop(self, response: Response, outcome: Outcome, reason: str) -> None:
        response.end(outcome, reason, self.now_s())
        self._pool.drop(response)
        self._on_ended(response)

    def _fail(self, error: Exception) -> None:
        if not self._over.done():
            self._over.set_exception(error)

    def _check_over(self) -> None:
        if not self._in_flight and self._schedule.due_s is None and not self._over.done():
            self._over.set_result(None)

    # looking after it

    def _tick(self) -> None:
        try:
            self._look_after()
        except Exception as error:  # a full disk, an observer that fails
            self._fail(error)

    def _look_after(self) -> None:
        now_s = self.now_s()
        self._stalls.note(now_s - self._tick_due_s, now_s, STALL_S)
        self._time_out(now_s)
        self._pool.tick(now_s)
        since_s = self._pool.unreachable_since_s
        if since_s is not None and now_s - since_s > self._options.server_gone_after_s:
            self._server_gone(since_s)
        self.scraper.tick(now_s, len(self._in_flight))
        self._journal.flush()
        self._tell(now_s)
        self._tick_due_s = now_s + TICK_S  # from before this work: an observer that dawdles is a stall as well
        self._ticks = self._loop.call_later(max(self._tick_due_s - self.now_s(), 0.0), self._tick)

    def _time_out(self, now_s: float) -> None:
        limit_s = self._options.request_timeout_s
        while self._in_flight:
            response = next(iter(self._in_flight))
            if now_s - response.record.intended_s < limit_s:
                return
            self._drop(response, Outcome.TIMED_OUT, f"no end within {limit_s:g} s")

    def _server_gone(self, since_s: float) -> None:
        """Fail what is in flight and what was still to come, for one reason, and end the run."""
        reason = f"the server is gone: {self._pool.last_failure} since {since_s:.1f} s"
        if self._stopped is None:
            unsent = self._schedule.unsent()
            self._stopped = f"{reason}; {len(unsent)} requests were not sent"
            self._schedule.stop()
            for response in list(self._in_flight):
                self._drop(response, Outcome.FAILED, reason)
            for index in unsent:
                self._keep_unsent(index, Outcome.FAILED, f"not sent: {reason}")
            self._check_over()

    def _tell(self, now_s: float) -> None:
        late_s = now_s - self._tell_s
        due_s = self._schedule.due_s
        if late_s > 2 * PROGRESS_S or (late_s > PROGRESS_S and (due_s is None or due_s - now_s > QUIET_S)):
            self._tell_s = now_s
            self._observer.progress(self._tally.progress(now_s, len(self._in_flight)))
