"""The server's book of requests: exactly one end each, whoever ends it, and one abort for those who leave."""

from __future__ import annotations

import asyncio

import pytest

from octavo.engine.messages import Refused, Report
from octavo.engine.pending import PendingRequests
from octavo.errors import ContextLengthError, EngineDeadError, InvalidRequestError
from octavo.types import EngineStats, FinishReason, TokenEvent


class Desk:
    """A book, what went to the engine, and readers."""

    def __init__(self) -> None:
        self.pending = PendingRequests()
        self.submitted: list[str] = []
        self.aborted: list[str] = []

    def stream(self, request_id: str):
        return self.pending.stream(request_id, lambda: self.submitted.append(request_id), self.aborted.append)

    def reader(self, request_id: str) -> asyncio.Task[list[TokenEvent]]:
        async def read() -> list[TokenEvent]:
            return [event async for event in self.stream(request_id)]

        return asyncio.create_task(read())

    def report(self, *events: TokenEvent) -> None:
        self.pending.handle(Report(list(events), EngineStats(total_steps=1)))


def token(request_id: str, token_id: int, end: FinishReason | None = None) -> TokenEvent:
    return TokenEvent(request_id=request_id, token_ids=(token_id,), finish_reason=end)


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_events_reach_their_reader_in_order_up_to_the_end():
    desk = Desk()
    a, b = desk.reader("a"), desk.reader("b")
    await settle()
    desk.report(token("a", 1), token("b", 2))
    desk.report(token("b", 3, FinishReason.LENGTH), token("a", 4))
    assert len(desk.pending) == 1
    desk.report(token("a", 5, FinishReason.STOP))
    assert [event.token_ids for event in await a] == [(1,), (4,), (5,)]
    assert [event.token_ids for event in await b] == [(2,), (3,)]
    assert (desk.submitted, desk.aborted, len(desk.pending)) == (["a", "b"], [], 0)
    assert desk.pending.stats.total_steps == 1


async def test_a_reader_that_closes_aborts_once_and_the_entry_waits_for_the_engine():
    desk = Desk()
    stream = desk.stream("a")
    first = asyncio.ensure_future(anext(stream))
    await settle()
    desk.report(token("a", 1))
    await first
    await stream.aclose()
    await stream.aclose()
    assert (desk.aborted, len(desk.pending)) == (["a"], 1)
    with pytest.raises(InvalidRequestError, match="'a' is in use"):
        await anext(desk.stream("a"))
    desk.report(token("a", 2))  # made before the engine heard of it
    desk.report(token("a", 3, FinishReason.ABORT))
    assert len(desk.pending) == 0

    again = desk.reader("a")
    await settle()
    desk.report(token("a", 9, FinishReason.STOP))
    assert [event.token_ids for event in await again] == [(9,)]


async def test_a_cancelled_reader_aborts_once():
    desk = Desk()
    reader = desk.reader("a")
    await settle()
    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader
    await settle()
    assert desk.aborted == ["a"]


async def test_closing_after_the_end_is_no_abort():
    desk = Desk()
    stream = desk.stream("a")
    first = asyncio.ensure_future(anext(stream))
    await settle()
    desk.report(token("a", 1, FinishReason.STOP))
    await first
    await stream.aclose()  # the end was read, StopAsyncIteration was not
    assert desk.aborted == []


async def test_leaving_with_the_end_unread_is_no_abort():
    desk = Desk()
    stream = desk.stream("a")
    first = asyncio.ensure_future(anext(stream))
    await settle()
    desk.report(token("a", 1), token("a", 2, FinishReason.STOP))
    await first
    await stream.aclose()
    assert (desk.aborted, len(desk.pending)) == ([], 0)


async def test_a_stream_that_is_never_read_submits_nothing():
    desk = Desk()
    await desk.stream("a").aclose()
    assert (desk.submitted, desk.aborted, len(desk.pending)) == ([], [], 0)


async def test_a_refusal_is_raised_as_itself():
    desk = Desk()
    reader = desk.reader("a")
    await settle()
    desk.pending.handle(Refused(request_id="a", code="context_length_exceeded", message="too long", param="prompt"))
    with pytest.raises(ContextLengthError, match="too long"):
        await reader
    assert (desk.aborted, len(desk.pending)) == ([], 0)


async def test_a_submit_that_raises_leaves_nothing_behind():
    pending = PendingRequests()

    def submit() -> None:
        raise EngineDeadError("no engine")

    with pytest.raises(EngineDeadError):
        await anext(pending.stream("a", submit, lambda request_id: pytest.fail("nothing to abort")))
    assert len(pending) == 0


async def test_failing_all_ends_each_once_after_what_it_has_heard():
    desk = Desk()
    readers = [desk.reader(name) for name in "abc"]
    left = desk.stream("d")
    waiting = asyncio.ensure_future(anext(left))
    await settle()
    waiting.cancel()
    await settle()
    desk.report(token("a", 1), token("b", 2, FinishReason.STOP))
    desk.pending.fail_all("the engine died")
    desk.pending.fail_all("the engine died twice")
    desk.report(token("a", 7, FinishReason.STOP))  # nobody is there to hear it
    ends = [[event.finish_reason for event in await reader] for reader in readers]
    assert ends == [[None, FinishReason.ERROR], [FinishReason.STOP], [FinishReason.ERROR]]
    assert readers[2].result()[0].error == "the engine died"
    assert len(desk.pending) == 0


async def test_drain_waits_for_the_end_then_aborts_the_rest():
    desk = Desk()
    quick, slow = desk.reader("quick"), desk.reader("slow")
    await settle()
    draining = asyncio.create_task(desk.pending.drain(0.05, desk.aborted.append))
    await settle()
    desk.report(token("quick", 1, FinishReason.STOP))
    await draining
    assert [event.finish_reason for event in await quick] == [FinishReason.STOP]
    assert [event.finish_reason for event in await slow] == [FinishReason.ABORT]
    assert desk.aborted == ["slow"]
    assert len(desk.pending) == 1  # until the engine confirms
    desk.report(token("slow", 0, FinishReason.ABORT))
    await desk.pending.drain(60.0, desk.aborted.append)  # returns at once
