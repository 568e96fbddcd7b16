"""Fake engine client for the server's tests: one fixed text for every request; can be paused, fail or be unhealthy."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator

import httpx

from octavo.config import ServerConfig
from octavo.errors import OctavoError
from octavo.server.app import create_app
from octavo.text.tokenizer import FakeTokenizer
from octavo.types import EngineInfo, EngineStats, FinishReason, RequestTimings, Submission, TokenEvent, TokenLogprobs

TEXT = "Hello wörld, this is the end. And more of it follows here: 1234567890"


class FakeEngineClient:
    """``TEXT`` byte by byte (the fake tokenizer's tokens), then end-of-sequence; ``max_tokens`` may cut it."""

    def __init__(self, text: str = TEXT, *, max_model_len: int = 512, num_blocks: int = 64) -> None:
        self.info = EngineInfo(
            model="fake", vocab_size=512, max_model_len=max_model_len, block_size=16, num_blocks=num_blocks
        )
        self.stats = EngineStats(num_blocks=num_blocks, total_steps=1, step_num_tokens=1)
        self.token_ids = [*text.encode(), 257]
        self.submissions: list[Submission] = []
        self.aborted: list[str] = []
        self.go = asyncio.Event()  # cleared: requests stop after their first token
        self.go.set()
        self.reason: str | None = None
        self.refusal: OctavoError | None = None
        self.error_after: int | None = None
        self.num_pending = 0

    def unhealthy_reason(self) -> str | None:
        return self.reason

    async def generate(self, submission: Submission) -> AsyncGenerator[TokenEvent, None]:
        if self.refusal is not None:
            raise self.refusal
        self.submissions.append(submission)
        self.num_pending += 1
        ended = False
        try:
            params = submission.params
            limit = params.max_tokens or self.info.max_request_tokens - len(submission.prompt_token_ids)
            for i, token_id in enumerate(self.token_ids):
                await asyncio.sleep(0)
                if i == self.error_after:
                    ended = True
                    yield self._event(submission, (), FinishReason.ERROR, error="non-finite logits")
                    return
                reason = FinishReason.STOP if token_id in {257, *params.stop_token_ids} else None
                reason = reason or (FinishReason.LENGTH if i + 1 == limit else None)
                ended = reason is not None
                yield self._event(submission, (token_id,), reason)
                if ended:
                    return
                await self.go.wait()
        finally:
            self.num_pending -= 1
            if not ended:
                self.aborted.append(submission.request_id)

    def _event(
        self, submission: Submission, token_ids: tuple[int, ...], reason: FinishReason | None, error: str | None = None
    ) -> TokenEvent:
        count = submission.params.logprobs
        top = [TokenLogprobs(t, -0.5, tuple((t + k, -0.5 - k) for k in range(count or 0))) for t in token_ids]
        return TokenEvent(
            request_id=submission.request_id,
            token_ids=token_ids,
            logprobs=None if count is None else tuple(top),
            time_s=time.monotonic(),
            finish_reason=reason,
            error=error,
            num_cached_tokens=4,
            timings=RequestTimings(queue_s=0.1, ttft_s=0.2, tpot_s=0.01, e2e_s=0.5) if reason else None,
        )


def connect(engine: FakeEngineClient, config: ServerConfig | None = None, **options: object) -> httpx.AsyncClient:
    """An HTTP client wired straight into the application."""
    app = create_app(engine, FakeTokenizer(), config or ServerConfig(), "fake", **options)  # type: ignore[arg-type]
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test", timeout=10)
