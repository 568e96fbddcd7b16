"""Prompt-lookup drafts for speculative decoding: what followed the last few tokens when they occurred before.

Saxena, "Prompt Lookup Decoding" (2023). The step that verifies a draft computes the row of its every token beside the row that is
due anyway. Up to ``MAX_ROWS`` rows cost a memory-bound step about as much as one, so the scheduler allows drafts only while a
step has fewer.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence

from octavo.executor.requests import RequestState, Row
from octavo.executor.sampling.parameters import is_unedited

MAX_ROWS = 6
LONGEST_MATCH, SHORTEST_MATCH = 4, 2
ITEM = array("i").itemsize

Draft = tuple[int, ...]


class PromptLookup:
    """Drafts for the requests of a step. Holds the texts of the requests that it saw last, and nothing else."""

    def __init__(self) -> None:
        self._texts: dict[str, array[int]] = {}
        self.num_drafted = 0  # in the last step

    def drafts(self, rows: Sequence[Row]) -> list[Draft]:
        """One draft a row, as long as the plan allows; empty where nothing may be drafted, or nothing is found."""
        before, self._texts = self._texts, {}
        drafts = [self._draft(row, before) for row in rows]
        self.num_drafted = sum(map(len, drafts))
        return drafts

    def _draft(self, row: Row, before: dict[str, array[int]]) -> Draft:
        request = row.request
        if not row.num_draft_tokens or not is_unedited(request):
            return ()
        text = self._texts[request.request_id] = _extended(before.get(request.request_id), request)
        return follow_up(text, row.num_draft_tokens)


def follow_up(text: array[int], num_tokens: int) -> Draft:
    """Up to ``num_tokens`` tokens after the last earlier place of the longest matching end of ``text``."""
    if num_tokens < 1:
        return ()
    data = text.tobytes()
    for length in range(min(LONGEST_MATCH, len(text) - 1), SHORTEST_MATCH - 1, -1):
        place = _last_place(data, data[-length * ITEM :])
        if place >= 0:
            return tuple(text[place + length : place + length + num_tokens])
    return ()


def _last_place(data: bytes, end: bytes) -> int:
    """The index of the last token where ``end`` begins, before its own place; -1: nowhere."""
    stop = len(data) - ITEM
    while (found := data.rfind(end, 0, stop)) >= 0:
        if found % ITEM == 0:
            return found // ITEM
        stop = found + len(end) - 1  # across the borders of tokens: look further to the left
    return -1


def _extended(text: array[int] | None, request: RequestState) -> array[int]:
    """The request's tokens; ``text`` holds some of the first ones already."""
    if text is None:
        return array("i", request.token_ids)
    text.extend(request.token_ids[len(text) :])
    return text
