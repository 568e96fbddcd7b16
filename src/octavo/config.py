"""``EngineConfig`` and ``ServerConfig``: every setting, frozen, with its one default, its bounds and the CLI's help text.

The flags of ``octavo serve`` are generated from these fields (``max_num_running`` -> ``--max-num-running``). Unknown keys
raise with a suggestion. ``auto`` is resolved once, by ``octavo.engine.resolve``, into a config without any ``auto``.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta

from octavo.errors import ConfigError

DEFAULT_MODEL = "smollm2-135m-instruct"

C = TypeVar("C", bound=msgspec.Struct)


class EngineConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The engine: model, executor, KV cache, scheduler."""

    executor: Annotated[
        str,
        Meta(
            description="auto, native (own CPU kernels), cpu and cuda (torch), or fake (seeded tokens without a model, for tests)"
        ),
    ] = "auto"
    dtype: Annotated[
        str,
        Meta(
            description="weights and arithmetic: auto, float32, bfloat16, float16; with native kernels: stored (as in the "
            "file), int8, int4 (quantised on load)"
        ),
    ] = "auto"
    kv_dtype: Annotated[
        str,
        Meta(
            description="keys and values in the cache: auto, float32, bfloat16, float16 (torch), int8 (native kernels)"
        ),
    ] = "auto"
    num_threads: Annotated[int, Meta(ge=0, description="CPU threads of the executor; 0: one per usable core")] = 0
    max_model_len: Annotated[int, Meta(ge=0, description="context in tokens; 0: the model's own")] = 0
    block_size: Annotated[int, Meta(ge=1, le=1024, description="tokens per KV block")] = 16
    num_blocks: Annotated[int, Meta(ge=0, description="KV blocks; 0: from the memory at hand")] = 0
    max_num_running: Annotated[int, Meta(ge=1, le=4096, description="requests that run at once")] = 64
    max_step_tokens: Annotated[
        int, Meta(ge=0, description="token budget of one step, prefill chunks included; 0: auto")
    ] = 0
    policy: Annotated[
        str,
        Meta(
            description="who runs next: fcfs, priority, priority-ageing, sjf, mlfq, vtc, dlpm, sarathi, edf, qoserve, "
            "slidingserve, slo"
        ),
    ] = "fcfs"
    num_draft_tokens: Annotated[
        int,
        Meta(
            ge=0, le=5, description="executor=native: tokens that prompt lookup drafts for a request and step; 0: off"
        ),
    ] = 0
    classes: Annotated[
        str, Meta(description="TOML file of service classes; empty: interactive, standard and batch, built in")
    ] = ""
    tenant_requests_per_s: Annotated[float, Meta(ge=0, description="requests a second of one API key; 0: any")] = 0.0
    tenant_tokens_per_s: Annotated[
        float, Meta(ge=0, description="prompt and allowed output tokens a second of one API key; 0: any")
    ] = 0.0
    tenant_max_requests: Annotated[int, Meta(ge=0, description="requests of one API key that wait or run; 0: any")] = 0
    tenant_kv_share: Annotated[
        float, Meta(gt=0, le=1, description="share of the KV cache that one API key's requests may claim")
    ] = 1.0
    prefix_cache: Annotated[bool, Meta(description="reuse the blocks of a shared prefix")] = True
    seed: Annotated[int, Meta(ge=0, description="seed of requests that bring none")] = 0
    fake_step_ms: Annotated[float, Meta(ge=0, description="executor=fake: duration of a step in milliseconds")] = 0.0
    fake_steps_in_flight: Annotated[
        int, Meta(ge=1, le=8, description="executor=fake: steps launched before the oldest is committed, as on a GPU")
    ] = 1


class ServerConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The HTTP server: address, caps on what a client can size, supervision of the engine."""

    host: Annotated[str, Meta(description="address to listen on")] = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535, description="port; 0 picks a free one")] = 8000
    served_model_name: Annotated[str, Meta(description="name in /v1/models and answers; empty: the model's own")] = ""
    api_key_file: Annotated[str, Meta(description="file with one API key a line; empty: no key needed")] = ""
    max_num_waiting: Annotated[
        int, Meta(ge=1, description="requests that may wait beyond the running ones; then 503")
    ] = 512
    max_body_bytes: Annotated[int, Meta(ge=1024, description="largest request body")] = 8 << 20
    max_n: Annotated[int, Meta(ge=1, description="cap on n")] = 16
    max_logprobs: Annotated[int, Meta(ge=0, description="cap on logprobs and top_logprobs")] = 20
    max_stop: Annotated[int, Meta(ge=1, description="cap on the number of stop strings and of stop token ids")] = 16
    max_stop_chars: Annotated[int, Meta(ge=1, description="cap on the length of one stop string")] = 256
    max_logit_bias: Annotated[int, Meta(ge=0, description="cap on the entries of logit_bias")] = 1024
    max_prompts: Annotated[int, Meta(ge=1, description="cap on the prompts of one /v1/completions request")] = 64
    grace_s: Annotated[float, Meta(ge=0, description="seconds that running requests get after SIGTERM")] = 30.0
    hang_timeout_s: Annotated[
        float, Meta(gt=0, description="pending work and no finished step for this long: hung")
    ] = 60.0
    start_timeout_s: Annotated[float, Meta(gt=0, description="seconds that the engine gets to load")] = 300.0
    max_restarts: Annotated[int, Meta(ge=0, description="engine restarts within restart_window_s before giving up")] = 3
    restart_window_s: Annotated[float, Meta(gt=0, description="window over which restarts are counted")] = 300.0


def from_mapping(kind: type[C], values: dict[str, Any]) -> C:
    """Build a config from plain values; raises ``ConfigError`` naming the key, the limit and the nearest known key."""
    refuse_unknown(values, kind.__struct_fields__)
    try:
        return msgspec.convert(values, kind, strict=False)
    except msgspec.ValidationError as error:
        what, _, path = str(error).partition(" - at `$.")
        key = path.split(".")[0].split("[")[0].rstrip("`")
        if key not in values:
            raise ConfigError(f"bad setting: {error}") from None
        expected = what.replace("`", "").replace("Expected", "expected", 1).split(", got ")[0]
        raise ConfigError(f"{key} = {values[key]!r}: {expected}", param=key) from None


def refuse_unknown(values: Iterable[str], known: Sequence[str]) -> None:
    """Raise ``ConfigError`` for the first key that is not ``known``, with the nearest one that is."""
    for key in values:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(known)}"
            raise ConfigError(f"unknown setting {key!r}{hint}", param=key)
