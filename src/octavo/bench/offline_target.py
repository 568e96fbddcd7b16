"""Benchmark target: the engine in this process, driven in a closed loop over its step function, without HTTP.

The work is that of ``octavo.LLM``: every token becomes text. Times are taken when a step's tokens have become text.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from octavo.bench.limits import ModelFacts
from octavo.bench.suite import PlanResponses
from octavo.bench.types import BenchRequest, LoadPlan, Outcome, RequestRecord
from octavo.config import EngineConfig
from octavo.engine.build import build_engine, usable_hardware
from octavo.engine.resolve import FAKE_MODEL, NATIVE_DTYPES, resolve
from octavo.errors import ConfigError, OctavoError, RequestFailedError
from octavo.models.load import read_config
from octavo.models.memory import BYTES_PER_ELEMENT, kv_bytes_per_token
from octavo.text.response import ResponseDecoder
from octavo.text.tokenizer import FakeTokenizer, load_tokenizer
from octavo.types import SamplingParams, Submission, TokenEvent


class OfflineTarget:
    """``with OfflineTarget(name, path, config) as target`` -- loaded inside, its memory given back after it."""

    name = "offline"

    def __init__(self, model: str, path: Path | None, config: EngineConfig) -> None:
        self._tokenizer = FakeTokenizer() if path is None else load_tokenizer(path)
        built = build_engine(config, model, path, self._tokenizer.eos_token_ids)
        self._engine, self.config = built.engine, built.resolution.config
        self.info = self._engine.info
        self._num_submitted = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._engine.close()

    def run(self, plan: LoadPlan) -> PlanResponses:
        """Each user keeps one request in flight until all have ended."""
        loop = _Loop(plan, time.perf_counter())
        for _ in range(plan.concurrency or len(plan.requests)):
            self._next(loop)
        while loop.live:
            for event in self._engine.step().events:
                if event.request_id in loop.live and self._take(loop, event):
                    self._next(loop)
        return PlanResponses(records=sorted(loop.records, key=lambda record: record.index))

    def _next(self, loop: _Loop) -> None:
        """Submit the next request; one that is refused is a record, and the one after it is tried."""
        while loop.waiting:
            request = loop.waiting.popleft()
            now_s = loop.now_s()
            record = RequestRecord(index=request.index, intended_s=now_s, sent_s=now_s, tenant=request.tenant)
            loop.records.append(record)
            params = SamplingParams(max_tokens=request.max_tokens, temperature=0.0, ignore_eos=request.ignore_eos)
            request_id = f"bench-{self._num_submitted}"
            self._num_submitted += 1
            submission = Submission(
                request_id=request_id,
                prompt_token_ids=_token_ids(request),
                params=params,
                arrival_s=time.monotonic(),
            )
            try:
                self._engine.submit(submission)
            except OctavoError as error:
                record.outcome, record.error, record.end_s = Outcome.FAILED, error.message, loop.now_s()
                continue
            record.prompt_tokens, record.output_tokens = len(_token_ids(request)), 0
            loop.live[request_id] = _Live(record, ResponseDecoder(self._tokenizer, submission))
            return

    def _take(self, loop: _Loop, event: TokenEvent) -> bool:
        """Add the event to its record; whether it was the last one."""
        live = loop.live[event.request_id]
        record, failure = live.record, None
        try:
            live.decoder.decode(event)
        except RequestFailedError as error:
            failure = error.message
        now_s = loop.now_s()
        if event.token_ids:
            record.first_token_s = now_s if record.first_token_s is None else record.first_token_s
            record.chunk_s.append(now_s)
            record.chunk_tokens.append(len(event.token_ids))
            record.output_tokens = (record.output_tokens or 0) + len(event.token_ids)
        if event.finish_reason is None:
            return False
        record.end_s, record.finish_reason = now_s, str(event.finish_reason)
        record.cached_tokens = event.num_cached_tokens
        if failure is not None:
            record.outcome, record.error = Outcome.FAILED, failure
        del loop.live[event.request_id]
        return True


@dataclass(frozen=True, slots=True)
class _Live:
    """A request in flight."""

    record: RequestRecord
    decoder: ResponseDecoder


class _Loop:
    """One plan under way."""

    def __init__(self, plan: LoadPlan, zero_s: float) -> None:
        self._zero_s = zero_s
        self.waiting = deque(plan.requests)
        self.live: dict[str, _Live] = {}
        self.records: list[RequestRecord] = []

    def now_s(self) -> float:
        return time.perf_counter() - self._zero_s


def _token_ids(request: BenchRequest) -> list[int]:
    if request.token_ids is None:
        raise ConfigError("the engine in this process is asked with token ids; this plan has text")
    return request.token_ids


class MeasuredModel(NamedTuple):
    """A model and what the engine does with it on this machine; ``path`` and ``facts`` are None for the fake executor."""

    name: str
    path: Path | None
    config: EngineConfig  # as asked for
    facts: ModelFacts | None
    num_threads: int | None
    vocab_size: int
    max_context: int | None


def measured_model(name: str, path: Path | None, config: EngineConfig) -> MeasuredModel:
    """Settle what the engine will do. Raises ``OctavoError`` for a model or settings that it cannot run."""
    described = FAKE_MODEL if path is None else read_config(path)
    settled = resolve(config, described, usable_hardware()).config
    facts = model_facts(name, path, settled)
    return MeasuredModel(name, path, config, facts, settled.num_threads, described.vocab_size, settled.max_model_len)


def model_facts(name: str, path: Path | None, config: EngineConfig) -> ModelFacts | None:
    """What the limits need, of a model run with the resolved ``config``; None for the fake executor."""
    if path is None:
        return None
    model = read_config(path)
    head = model.vocab_size * model.hidden_size
    outside = head * (1 if model.tie_word_embeddings else 2)
    layers = model.num_parameters - outside
    return ModelFacts(
        name=name,
        num_parameters=model.num_parameters,
        layer_parameters=layers,
        head_parameters=head,
        weight_bytes=int((layers + head) * BYTES_PER_ELEMENT[config.dtype]),  # until the engine says it (as_served)
        kv_bytes_per_token=kv_bytes_per_token(model, config.kv_dtype),
        num_layers=model.num_layers,
        num_heads=model.num_heads,
        head_dim=model.head_dim,
        vocab_size=model.vocab_size,
        arithmetic="int8" if config.dtype in NATIVE_DTYPES else config.dtype,  # native kernels: activations in 8 bits
        windows=model.windows,
    )
