"""Prompt-lookup drafts: what followed the last few tokens when they stood in the text before, will probably follow again.

Saxena, "Prompt Lookup Decoding" (2023). The step that verifies a draft computes the row of its every token beside the row that is
due anyway. Up to ``MAX_ROWS`` rows cost a memory-bound step about as much as one, so drafts are made only while a step has fewer.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence

from octavo.executor.sampling.parameters import is_unedited
from octavo.types import PlannedRequest, Request

MAX_ROWS = 6
LONGEST_MATCH, SHORTEST_MATCH = 4, 2
ITEM = array("i").itemsize

Draft = tuple[int, ...]


class PromptLookup:
    """Drafts for the requests of a step. Holds the texts of the requests that it saw last, and nothing else."""

    def __init__(self, num_tokens: int, block_size: int) -> None:
        self._num_tokens, self._block_size = num_tokens, block_size
        self._texts: dict[str, array[int]] = {}
        self.num_drafted = 0  # in the last step

    def drafts(self, requests: Sequence[PlannedRequest]) -> list[Draft]:
        """One draft a request, empty where there is nothing to verify it with, or nothing to draft."""
        self.num_drafted = 0
        sampling = sum(planned.samples for planned in requests)
        spare = MAX_ROWS - sum(planned.num_tokens for planned in requests)
        if not sampling or spare < sampling:
            self._texts.clear()
            return [()] * len(requests)
        most = min(self._num_tokens, spare // sampling)
        before, self._texts = self._texts, {}
        drafts = [self._draft(planned, most, before) for planned in requests]
        self.num_drafted = sum(map(len, drafts))
        return drafts

    def _draft(self, planned: PlannedRequest, most: int, before: dict[str, array[int]]) -> Draft:
        request = planned.request
        if not planned.samples or not is_unedited(request):
            return ()
        room = len(planned.block_ids) * self._block_size - planned.start - planned.num_tokens
        left = request.max_tokens - request.num_output_tokens - 1  # the last token needs no draft after it
        text = self._texts[request.request_id] = _extended(before.get(request.request_id), request)
        return follow_up(text, min(most, room, left))


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


def _extended(text: array[int] | None, request: Request) -> array[int]:
    """The request's tokens; ``text`` holds some of the first ones already."""
    if text is None:
        return array("i", request.token_ids)
    text.extend(request.token_ids[len(text) :])
    return text
