"""Sarathi: stall-free batching, order of arrival in steps short enough for the strictest TPOT objective.

Sarathi-Serve (Agrawal et al., OSDI 2024): decodes always run, and prefill chunks fill up what a target step time
leaves. Deviation: the paper profiles one token budget for a target offline; here the forecast of step times gives it
anew for every step.
"""

from __future__ import annotations

from collections.abc import Sequence

from octavo.scheduler.policies.fcfs import Fcfs
from octavo.scheduler.step_time import StepLoad
from octavo.types import Request

MIN_CHUNK = 16  # prefill tokens that a step always takes, so that a long decode batch never starves the queue


class Sarathi(Fcfs):
    """The target is the least TPOT target of any class of this server."""

    def token_budget(
        self, decodes: Sequence[Request], prefills: Sequence[Request], max_step_tokens: int, now: float
    ) -> int:
        targets = [one.tpot_s for one in self.forecast.classes if one.tpot_s is not None]
        step_time = self.forecast.step_time
        if not targets or not step_time.ready:
            return max_step_tokens
        load = StepLoad(0, len(decodes), sum(request.num_planned_tokens for request in decodes))
        start = prefills[0].num_planned_tokens if prefills else 0
        return len(decodes) + max(MIN_CHUNK, step_time.prefill_room(min(targets), load, start))
