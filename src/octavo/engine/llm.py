"""Library API: ``octavo.LLM("smollm2-135m-instruct").generate("Once upon a time")``, the engine in the caller's process."""

from __future__ import annotations

import itertools
import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from octavo.config import DEFAULT_MODEL, EngineConfig, from_mapping
from octavo.engine.build import build_engine
from octavo.engine.core import Engine
from octavo.engine.resolve import check_installed
from octavo.errors import InvalidRequestError, RequestFailedError
from octavo.models.registry import find_model
from octavo.text.response import ResponseDecoder
from octavo.text.tokenizer import FakeTokenizer, Tokenizer, load_tokenizer
from octavo.types import (
    EngineInfo,
    FinishReason,
    RequestTimings,
    SamplingParams,
    Submission,
    TokenEvent,
    TokenLogprobs,
)

Prompt = str | Sequence[int]
Params = SamplingParams | Sequence[SamplingParams] | None


@dataclass(slots=True)
class Output:
    """A finished generation. ``text`` ends before a stop string; ``token_ids`` holds every token that was sampled."""

    prompt_token_ids: list[int]
    text: str = ""
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprobs] | None = None
    finish_reason: FinishReason | None = None
    stop_reason: int | str | None = None
    num_cached_tokens: int = 0
    timings: RequestTimings | None = None


@dataclass(slots=True)
class _Live:
    """A request in flight: what it has become, and the text that its owner has not taken yet."""

    output: Output
    decoder: ResponseDecoder
    fresh: str = ""
    error: RequestFailedError | None = None

    @property
    def ended(self) -> bool:
        """The response has its finish reason."""
        return self.output.finish_reason is not None


class LLM:
    """A model, ready to generate. Not thread-safe; close it (or use ``with``) to give the memory back."""

    def __init__(self, model: str = DEFAULT_MODEL, config: EngineConfig | None = None, **overrides: Any) -> None:
        """``model``: a registry name, a folder with safetensors, a .gguf file or ``hf://org/name``. ``overrides`` are fields
        of ``EngineConfig``: ``LLM("gemma3-270m", dtype="float32", max_num_running=16)``."""
        settings = msgspec.structs.asdict(config or EngineConfig()) | overrides
        checked = from_mapping(EngineConfig, settings)
        check_installed(checked)
        path: Path | None = None
        if checked.executor == "fake":
            self.tokenizer: Tokenizer = FakeTokenizer()
        else:
            path = find_model(model).path
            self.tokenizer = load_tokenizer(path)
        self._engine: Engine = build_engine(checked, model, path, self.tokenizer.eos_token_ids).engine
        self._ids = itertools.count()
        self._live: dict[str, _Live] = {}

    @property
    def info(self) -> EngineInfo:
        """Model, context length, KV cache and dtype of the engine."""
        return self._engine.info

    def generate(self, prompts: Prompt | Sequence[Prompt], params: Params = None) -> list[Output]:
        """One ``Output`` per prompt, in order; all run together. A prompt is text or token ids.

        Raises ``InvalidRequestError`` before anything runs if a prompt or its parameters cannot be honoured, and
        ``RequestFailedError`` if the engine fails one.
        """
        token_ids = [self._encode(prompt) for prompt in _as_batch(prompts)]
        live = self._submit_all(token_ids, _one_each(params, len(token_ids)))
        try:
            for entry in live.values():
                while not entry.ended:
                    self._pump()
                _raise_failure(entry)
        finally:
            self._forget(live)
        return [entry.output for entry in live.values()]

    def stream(self, prompt: Prompt, params: SamplingParams | None = None) -> Generator[str, None, Output]:
        """The text as it comes; the generator returns the whole ``Output``. Leaving the loop early aborts the request."""
        live = self._submit_all([self._encode(prompt)], [params or SamplingParams()])
        (entry,) = live.values()
        try:
            while not entry.ended:
                self._pump()
                if entry.fresh:
                    text, entry.fresh = entry.fresh, ""
                    yield text
            _raise_failure(entry)
            return entry.output
        finally:
            self._forget(live)

    def chat(self, messages: Sequence[Mapping[str, Any]], params: SamplingParams | None = None) -> Output:
        """The response to a conversation, rendered with the model's own chat template."""
        return self.generate(self.tokenizer.encode_chat(list(messages)), params)[0]

    def chat_stream(
        self, messages: Sequence[Mapping[str, Any]], params: SamplingParams | None = None
    ) -> Generator[str, None, Output]:
        """The response to a conversation as it comes."""
        return self.stream(self.tokenizer.encode_chat(list(messages)), params)

    def close(self) -> None:
        """End the engine and free its memory; the object is of no use afterwards."""
        self._engine.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _encode(self, prompt: Prompt) -> list[int]:
        return self.tokenizer.encode(prompt) if isinstance(prompt, str) else list(prompt)

    def _submit_all(self, prompts: list[list[int]], params: Sequence[SamplingParams]) -> dict[str, _Live]:
        """All or nothing: one that is refused takes back those before it."""
        live: dict[str, _Live] = {}
        try:
            for token_ids, wanted in zip(prompts, params, strict=True):
                request_id = f"llm-{next(self._ids)}"
                submission = Submission(
                    request_id=request_id, prompt_token_ids=token_ids, params=wanted, arrival_s=time.monotonic()
                )
                self._engine.submit(submission)
                live[request_id] = _Live(Output(token_ids), ResponseDecoder(self.tokenizer, submission))
        except InvalidRequestError:
            self._forget(live)
            raise
        self._live |= live
        return live

    def _forget(self, live: dict[str, _Live]) -> None:
        """Abort what still runs; later events of these requests concern nobody."""
        for request_id, entry in live.items():
            self._live.pop(request_id, None)
            if not entry.ended:
                self._engine.abort(request_id)

    def _pump(self) -> None:
        """One engine step for everybody in flight, so that streams may be read side by side."""
        for event in self._engine.step().events:
            entry = self._live.get(event.request_id)
            if entry is not None and not entry.ended:
                self._apply(entry, event)

    def _apply(self, entry: _Live, event: TokenEvent) -> None:
        output, decoder = entry.output, entry.decoder
        try:
            delta = decoder.decode(event)
        except RequestFailedError as error:
            output.finish_reason, entry.error = event.finish_reason, error
            return
        output.token_ids.extend(event.token_ids)
        if event.logprobs is not None:
            output.logprobs = output.logprobs or []
            output.logprobs.extend(event.logprobs)
        output.num_cached_tokens = decoder.num_cached_tokens
        output.finish_reason, output.stop_reason, output.timings = delta.finish_reason, delta.stop_reason, delta.timings
        if entry.ended and event.finish_reason is None:  # by a stop string
            self._engine.abort(event.request_id)
        entry.fresh += delta.text
        output.text += delta.text


def _raise_failure(entry: _Live) -> None:
    if entry.error is not None:
        raise entry.error


def _as_batch(prompts: Prompt | Sequence[Prompt]) -> list[Prompt]:
    """A text, or token ids, is one prompt; anything else is a sequence of prompts."""
    items = [prompts] if isinstance(prompts, str) else list(prompts)
    token_ids = [item for item in items if isinstance(item, int)]
    prompts_among = [item for item in items if not isinstance(item, int)]
    if token_ids and prompts_among:
        raise InvalidRequestError(
            "a list mixes token ids and prompts; send either one prompt as ids, or a list of prompts"
        )
    return [token_ids] if token_ids else list(prompts_among)


def _one_each(params: Params, count: int) -> Sequence[SamplingParams]:
    if params is None or isinstance(params, SamplingParams):
        return [params or SamplingParams()] * count
    if len(params) != count:
        raise InvalidRequestError(f"{count} prompts but {len(params)} sampling params; give one, or one for each")
    return params
