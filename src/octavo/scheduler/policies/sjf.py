"""Shortest job first, by forecast remaining work.

Shortest remaining processing time minimises the mean time in the system (Schrage 1968); with predicted answer lengths
it is SSJF (Qiu et al. 2024, "Efficient interactive LLM serving with proxy model-based sequence length prediction").
Deviation: the prediction is a quantile of recent answers, not a proxy model. Running requests are not preempted for
shorter ones. Long ones can starve: use ``slo`` where that matters.
"""

from __future__ import annotations

from octavo.scheduler.policies.fcfs import Fcfs
from octavo.scheduler.policy import Rank
from octavo.types import Request


class ShortestJobFirst(Fcfs):
    """The rank falls as a request is served, so those close to their end are the last to give way."""

    static = False

    def rank(self, request: Request, now: float) -> Rank:
        uncomputed = len(request.token_ids) - request.num_planned_tokens
        return (uncomputed + self.forecast.remaining_output(request), request.sequence_number)
