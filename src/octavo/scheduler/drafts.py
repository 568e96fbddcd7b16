"""Number of draft tokens for each request of a step (speculative decoding)."""

from __future__ import annotations

from collections.abc import Sequence

from octavo.kvcache.cache import KVCache
from octavo.scheduler.plan_builder import PlanBuilder
from octavo.types import DraftLimits, Request


def allow_drafts(builder: PlanBuilder, sampling: Sequence[Request], kv: KVCache, limits: DraftLimits) -> None:
    """Share what is left of the budget and of the executor's rows among the planned requests that sample.

    The step is planned otherwise, so nobody gives way for a draft; its block table grows where there are free blocks.
    """
    num_planned = sum(share.num_tokens for share in builder.planned.values())
    spare = min(limits.max_rows - num_planned, builder.budget)
    if not sampling or spare < len(sampling):
        return
    for request in sampling:
        end = request.num_planned_tokens
        left = request.num_prompt_tokens + request.max_tokens - end - 1  # the last token needs no draft after it
        most = min(limits.num_tokens, spare // len(sampling), left)
        table = kv.block_table(request.request_id)
        if most > 0 and not kv.extend(request.request_id, end + most):
            most = min(most, len(table) * kv.block_size - end)
        if most > 0:
            builder.allow_drafts(request, most, table)
