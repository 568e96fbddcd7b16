"""Cumulative counters of the scheduler since the engine started; names as in ``EngineStats``."""

from __future__ import annotations

import msgspec


class Totals(msgspec.Struct):
    """Owned and mutated by the scheduler."""

    total_steps: int = 0
    total_preemptions: int = 0
    total_prompt_tokens: int = 0
    total_prefix_query_tokens: int = 0
    total_prefix_hit_tokens: int = 0
    total_draft_tokens: int = 0
    total_accepted_tokens: int = 0
