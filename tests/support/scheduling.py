"""Small builders for tests of the deciding rooms."""

from __future__ import annotations

from octavo.kvcache.cache import KVCache
from octavo.scheduler.policies import make_policy
from octavo.scheduler.scheduler import Scheduler
from octavo.types import DraftLimits, Plan, PlannedRequest, Request, Sample, SamplingParams, StepResult, TokenEvent


def make_request(request_id: str, prompt: list[int], max_tokens: int = 4, **fields: object) -> Request:
    defaults: dict[str, object] = {"params": SamplingParams(), "stop_ids": frozenset(), "arrival_s": 0.0}
    return Request(
        request_id=request_id,
        token_ids=list(prompt),
        num_prompt_tokens=len(prompt),
        max_tokens=max_tokens,
        **(defaults | fields),  # type: ignore[arg-type]
    )


def make_scheduler(
    num_blocks: int = 16,
    block_size: int = 4,
    *,
    policy: str = "fcfs",
    max_num_running: int = 4,
    max_step_tokens: int = 16,
    prefix_cache: bool = True,
    draft_limits: DraftLimits = DraftLimits(),  # noqa: B008 - immutable
) -> Scheduler:
    kv = KVCache(num_blocks, block_size, prefix_cache=prefix_cache)
    return Scheduler(
        make_policy(policy),
        kv,
        max_num_running=max_num_running,
        max_step_tokens=max_step_tokens,
        draft_limits=draft_limits,
    )


def next_token(request: Request) -> int:
    """A pure function of the request's known tokens, so preemption must not change what it says."""
    return (sum(request.token_ids) * 31 + len(request.token_ids)) % 97 + 3


def run_step(
    scheduler: Scheduler, now: float = 0.0, step_s: float = 0.0, token_s: float = 0.0, *, check: bool = True
) -> tuple[Plan, list[TokenEvent]]:
    """Plan, pretend to compute for ``step_s`` and ``token_s`` a token, commit, check."""
    plan = scheduler.plan(now)
    return plan, finish_step(scheduler, plan, now, step_s + token_s * plan.num_tokens, check=check)


def finish_step(
    scheduler: Scheduler, plan: Plan, now: float, step_time_s: float, *, check: bool = True
) -> list[TokenEvent]:
    """The second half of a step that began at ``now``."""
    samples = {share.request_id: sample(scheduler, share) for share in plan.requests if share.samples}
    events = scheduler.commit(plan, StepResult(samples, step_time_s), now + step_time_s)
    if check:  # costs as much as the cache has blocks
        scheduler.check(now + step_time_s)
    return events


def sample(scheduler: Scheduler, share: PlannedRequest) -> Sample:
    """What a model would sample, with all that its drafts may give (they are always right); anything for one that ended."""
    request = scheduler._requests.get(share.request_id)
    if request is None or len(request.token_ids) != share.start + share.num_tokens:
        return Sample((0,))
    copy = make_request("copy", request.token_ids)
    for _ in range(share.num_draft_tokens + 1):
        copy.token_ids.append(next_token(copy))
    return Sample(tuple(copy.token_ids[len(request.token_ids) :]), num_computed=share.num_draft_tokens)


def run_to_end(scheduler: Scheduler, max_steps: int = 10_000, step_s: float = 0.0) -> dict[str, list[int]]:
    """Output tokens by request id, of a scheduler that must come to its end."""
    outputs: dict[str, list[int]] = {}
    for step in range(max_steps):
        if not scheduler.has_work:
            return outputs
        for event in run_step(scheduler, float(step), step_s)[1]:
            outputs.setdefault(event.request_id, []).extend(event.token_ids)
    raise AssertionError(f"still at work after {max_steps} steps")
