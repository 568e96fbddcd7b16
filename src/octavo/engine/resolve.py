"""Resolution of ``auto`` settings: config, model and hardware -> concrete config and a reason for each choice."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgspec

from octavo.config import EngineConfig
from octavo.errors import ConfigError
from octavo.hardware import Hardware
from octavo.kvcache.fit import blocks_for
from octavo.models.config import TransformerConfig
from octavo.scheduler.policies import make_policy

BYTES_PER_ELEMENT = {"float32": 4, "bfloat16": 2, "float16": 2, "int8": 1, "int4": 0.625, "stored": 2}
EXECUTORS = ("native", "cpu", "cuda", "fake")
DTYPES = ("float32", "bfloat16", "float16")
KV_DTYPES = DTYPES
NATIVE_DTYPES = ("stored", "int8", "int4")
NATIVE_KV_DTYPES = ("float32", "bfloat16", "int8")

# Room on a CPU, so that as many requests as may run do run: of the KV cache, and of the available memory at most.
TOKENS_PER_RUNNING, SHARE_FOR_ALL = 512, 1 / 8

# Context of the executor without a model; its vocabulary is the fake tokenizer's.
FAKE_MODEL = TransformerConfig(
    architecture="fake",
    vocab_size=512,
    hidden_size=1,
    intermediate_size=1,
    num_layers=1,
    num_heads=1,
    num_kv_heads=1,
    head_dim=1,
    max_position=8192,
)


@dataclass(frozen=True)
class Resolution:
    """``config`` holds no ``auto`` and no 0-means-auto any more; ``reasons[field]`` says why for each that did."""

    config: EngineConfig
    reasons: dict[str, str]


@dataclass
class _Resolver:
    """The fields one after the other; later ones look at earlier ones."""

    asked: EngineConfig
    model: TransformerConfig
    hardware: Hardware
    weight_bytes: int | None
    values: dict[str, Any] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)

    def set(self, name: str, value: Any, reason: str) -> None:
        """Choose the field's value and say why."""
        self.values[name] = value
        self.reasons[name] = reason


def resolve(
    config: EngineConfig, model: TransformerConfig, hardware: Hardware, weight_bytes: int | None = None
) -> Resolution:
    """Raises ``ConfigError`` for unknown names, contradictions, and what this machine cannot hold.

    ``weight_bytes``: what the weights take as stored; None: an estimate.
    """
    resolver = _Resolver(config, model, hardware, weight_bytes, values=msgspec.structs.asdict(config))
    make_policy(config.policy)
    for step in (_names, _executor, _drafts, _dtypes, _threads, _context, _blocks, _budget):
        step(resolver)
    return Resolution(EngineConfig(**resolver.values), resolver.reasons)


def _names(r: _Resolver) -> None:
    """Words that no executor knows; what only another one knows is found later."""
    for name, known in (("dtype", (*DTYPES, *NATIVE_DTYPES)), ("kv_dtype", (*KV_DTYPES, "int8"))):
        if r.values[name] not in ("auto", *known):
            raise ConfigError(f"unknown {name} {r.values[name]!r}; known: auto, {', '.join(known)}", param=name)


def _executor(r: _Resolver) -> None:
    if r.asked.executor == "auto":
        obstacle = native_obstacle(r.asked, r.model, r.hardware)
        if r.hardware.gpus:
            r.set("executor", "cuda", f"found {r.hardware.gpus[0].name}")
        elif obstacle:
            r.set("executor", "cpu", f"no NVIDIA GPU that torch can use; no native kernels: {obstacle}")
        else:
            r.set("executor", "native", f"no NVIDIA GPU that torch can use; native kernels for {r.hardware.native_isa}")
    elif r.asked.executor not in EXECUTORS:
        raise ConfigError(
            f"unknown executor {r.asked.executor!r}; known: auto, {', '.join(EXECUTORS)}", param="executor"
        )
    elif r.asked.executor == "cuda" and not r.hardware.gpus:
        raise ConfigError(
            "executor = cuda, but there is no NVIDIA GPU that torch can use; see `octavo doctor`", param="executor"
        )
    elif r.asked.executor == "native" and (obstacle := native_obstacle(r.asked, r.model, r.hardware)):
        raise ConfigError(f"executor = native cannot run: {obstacle}; use executor = cpu", param="executor")


def native_obstacle(config: EngineConfig, model: TransformerConfig, hardware: Hardware) -> str:
    """Why the native kernels cannot serve this; empty if they can."""
    if not hardware.native_isa:
        return "the library is not built; see `octavo doctor`"
    if config.block_size % 16:
        return f"block_size = {config.block_size} is not a multiple of 16"
    if model.head_dim % 8 or model.head_dim > 256:
        return f"the model's head size {model.head_dim} is not a multiple of 8 up to 256"
    for name, known in (("dtype", NATIVE_DTYPES), ("kv_dtype", NATIVE_KV_DTYPES)):
        if getattr(config, name) not in ("auto", *known):
            return f"{name} = {getattr(config, name)} is not theirs (they have {', '.join(known)})"
    return ""


def _drafts(r: _Resolver) -> None:
    if r.asked.num_draft_tokens and r.values["executor"] != "native":
        raise ConfigError(
            f"num_draft_tokens = {r.asked.num_draft_tokens} needs executor = native, which verifies drafts; here it is "
            f"{r.values['executor']}",
            param="num_draft_tokens",
        )


def _dtypes(r: _Resolver) -> None:
    is_native = r.values["executor"] == "native"
    known = {"dtype": DTYPES, "kv_dtype": KV_DTYPES}
    if is_native:
        known = {"dtype": NATIVE_DTYPES, "kv_dtype": NATIVE_KV_DTYPES}
    for name, names in known.items():
        if r.values[name] not in ("auto", *names):
            raise ConfigError(
                f"{name} = {r.values[name]} is not for executor = {r.values['executor']}, which has auto, {', '.join(names)}",
                param=name,
            )
    if is_native:
        _native_dtypes(r)
    else:
        _torch_dtypes(r)


def _native_dtypes(r: _Resolver) -> None:
    if r.values["dtype"] == "auto":
        r.set("dtype", "stored", "weights as the file has them; activations of quantised ones in 8 bits")
    if r.values["kv_dtype"] == "auto":
        r.set("kv_dtype", "bfloat16", "half the bytes of float32; the arithmetic on it is float32")


def _torch_dtypes(r: _Resolver) -> None:
    native = {"avx512_bf16", "amx_bf16"} & r.hardware.isa
    if r.values["dtype"] == "auto":
        if r.values["executor"] == "cuda":
            r.set("dtype", "bfloat16", "tensor cores; half the bytes of float32")
        elif native:
            r.set("dtype", "bfloat16", f"this CPU multiplies bfloat16 natively ({', '.join(sorted(native))})")
        else:
            r.set("dtype", "float32", "this CPU has no bfloat16 arithmetic, so bfloat16 would be slower")
    if r.values["kv_dtype"] == "auto":
        r.set(
            "kv_dtype",
            r.values["dtype"],
            "as exact as the arithmetic, so a request's text never depends on its company",
        )


def _threads(r: _Resolver) -> None:
    cores = r.hardware.num_cores
    if r.asked.num_threads == 0:
        r.set("num_threads", cores, f"{cores} usable cores")
    elif r.asked.num_threads > cores:
        raise ConfigError(
            f"num_threads = {r.asked.num_threads}, but only {cores} cores are usable here (affinity and cgroup limits counted); "
            f"more threads than cores only wait for each other: use at most {cores}",
            param="num_threads",
        )


def _context(r: _Resolver) -> None:
    longest = r.model.max_position
    if r.asked.max_model_len == 0:
        r.set("max_model_len", longest, "the model's trained context")
    elif r.asked.max_model_len > longest:
        raise ConfigError(
            f"max_model_len = {r.asked.max_model_len}, but the model was made for {longest} positions",
            param="max_model_len",
        )


def _blocks(r: _Resolver) -> None:
    per_block = r.asked.block_size * kv_bytes_per_token(r.model, r.values["kv_dtype"])
    room = kv_room_bytes(r.values["executor"], r.values["dtype"], r.model, r.hardware, r.weight_bytes)
    fits = room // per_block
    if r.asked.num_blocks:
        if r.asked.num_blocks > fits and r.values["executor"] != "fake":
            raise ConfigError(
                f"num_blocks = {r.asked.num_blocks} need {r.asked.num_blocks * per_block / 2**20:.0f} MiB, but beside the "
                f"weights there is room for {room / 2**20:.0f} MiB, which is {fits} blocks",
                param="num_blocks",
            )
        return
    if fits < 1:
        raise ConfigError(
            f"the model does not fit: its weights in {r.values['dtype']} leave no room for a KV block of "
            f"{per_block / 2**20:.2f} MiB; see `octavo models show`",
            param="num_blocks",
        )
    if r.values["executor"] == "cuda":
        r.set("num_blocks", fits, f"90 % of the GPU's memory less the weights: {room / 2**30:.1f} GiB")
        return
    one_context = blocks_for(r.values["max_model_len"], r.asked.block_size)
    for_all = blocks_for(r.asked.max_num_running * TOKENS_PER_RUNNING, r.asked.block_size)
    for_all = min(for_all, int(r.hardware.available_bytes * SHARE_FOR_ALL) // per_block)
    if max(one_context, for_all) > fits:
        why = f"as many as half of the available memory holds beside the weights, {room / 2**20:.0f} MiB"
    elif for_all > one_context:
        why = f"{TOKENS_PER_RUNNING} tokens for each request that may run, {for_all * per_block / 2**20:.0f} MiB"
    else:
        why = f"one full context, {one_context * per_block / 2**20:.0f} MiB"
    r.set("num_blocks", min(max(one_context, for_all), fits), why)


def kv_bytes_per_token(model: TransformerConfig, kv_dtype: str) -> int:
    """Keys and values of one token in all layers; int8 has a float32 scale for every head of each."""
    scales = 2 * 4 * model.num_layers * model.num_kv_heads if kv_dtype == "int8" else 0
    return model.kv_bytes_per_token(int(BYTES_PER_ELEMENT[kv_dtype])) + scales


def kv_room_bytes(
    executor: str, dtype: str, model: TransformerConfig, hardware: Hardware, weight_bytes: int | None = None
) -> int:
    """Bytes left for keys and values beside the weights. Half of a laptop's free memory is not ours to take."""
    weights = weight_bytes or int(model.num_parameters * BYTES_PER_ELEMENT[dtype])
    if executor == "cuda":
        return max(0, int(hardware.gpus[0].memory_bytes * 0.9) - weights)
    return max(0, min(hardware.available_bytes - weights, hardware.available_bytes // 2))


def _budget(r: _Resolver) -> None:
    if r.asked.max_step_tokens == 0:
        auto = 2048 if r.values["executor"] == "cuda" else 512
        r.set(
            "max_step_tokens",
            max(auto, r.asked.max_num_running),
            "long enough to saturate the arithmetic, short enough that running requests do not wait for a prefill",
        )
    elif r.asked.max_step_tokens < r.asked.max_num_running:
        raise ConfigError(
            f"max_step_tokens = {r.asked.max_step_tokens} is below max_num_running = {r.asked.max_num_running}: every running "
            "request needs at least one token a step; raise the one or lower the other",
            param="max_step_tokens",
        )
