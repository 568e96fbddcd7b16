"""Resolution of ``auto`` settings: config, model and hardware -> concrete config and a reason for each choice."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgspec

from octavo.config import EngineConfig
from octavo.errors import ConfigError
from octavo.executor.factory import NEEDS_TORCH, NEEDS_TRITON, TORCH_EXECUTORS
from octavo.extras import is_installed, missing, require
from octavo.hardware import Hardware
from octavo.kernels.native import library
from octavo.kvcache.fit import blocks_for
from octavo.models.config import TransformerConfig
from octavo.models.memory import BYTES_PER_ELEMENT, kv_bytes_per_token
from octavo.scheduler.policies import make_policy

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
    head_dim=8,  # the smallest of the native kernels: what does not depend on a model is resolved with this one
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


def check_installed(config: EngineConfig) -> None:
    """What no model can change, before one is fetched.

    Raises ``MissingPackageError`` where nothing that is installed can serve with these settings.
    """
    if config.executor == "cuda":
        require("triton", NEEDS_TRITON)
    if config.executor in TORCH_EXECUTORS:
        require("torch", NEEDS_TORCH)
    if config.executor == "fake" or is_installed("torch"):
        return
    if obstacle := settings_obstacle(config):
        raise missing("torch", f"the native kernels cannot run: {obstacle}; {NEEDS_TORCH}")
    try:
        library.find()
    except OSError as error:
        how = "with a C++ compiler, octavo doctor --build-native builds them"
        raise missing("torch", f"no native kernels ({error}; {how}); without them serving needs") from None


def _names(r: _Resolver) -> None:
    """Words that no executor knows; what only another one knows is found later."""
    for name, known in (("dtype", (*DTYPES, *NATIVE_DTYPES)), ("kv_dtype", (*KV_DTYPES, "int8"))):
        if r.values[name] not in ("auto", *known):
            raise ConfigError(f"unknown {name} {r.values[name]!r}; known: auto, {', '.join(known)}", param=name)


def _executor(r: _Resolver) -> None:
    if r.asked.executor == "auto":
        _choose_executor(r)
    elif r.asked.executor not in EXECUTORS:
        raise ConfigError(
            f"unknown executor {r.asked.executor!r}; known: auto, {', '.join(EXECUTORS)}", param="executor"
        )
    elif r.asked.executor in TORCH_EXECUTORS and not r.hardware.has_torch:
        raise missing("torch", NEEDS_TORCH)
    elif r.asked.executor == "cuda" and not r.hardware.gpus:
        raise ConfigError(
            "executor = cuda, but there is no NVIDIA GPU that torch can use; see `octavo doctor`", param="executor"
        )
    elif r.asked.executor == "native" and (obstacle := native_obstacle(r.asked, r.model, r.hardware)):
        raise ConfigError(f"executor = native cannot run: {obstacle}; use executor = cpu", param="executor")


def _choose_executor(r: _Resolver) -> None:
    obstacle = native_obstacle(r.asked, r.model, r.hardware)
    no_gpu = (
        "no NVIDIA GPU that torch and Triton can use"
        if r.hardware.has_torch
        else "torch, which GPUs need, is not installed"
    )
    if r.hardware.gpus:
        r.set("executor", "cuda", f"found {r.hardware.gpus[0].name}")
    elif not obstacle:
        r.set("executor", "native", f"{no_gpu}; native kernels for {r.hardware.native_isa}")
    elif r.hardware.has_torch:
        r.set("executor", "cpu", f"{no_gpu}; no native kernels: {obstacle}")
    else:
        raise missing("torch", f"the native kernels cannot run: {obstacle}; {NEEDS_TORCH}")


def native_obstacle(config: EngineConfig, model: TransformerConfig, hardware: Hardware) -> str:
    """Why the native kernels cannot serve this; empty if they can."""
    if not hardware.native_isa:
        return "they are not built (with a C++ compiler: octavo doctor --build-native)"
    if model.head_dim % 8 or model.head_dim > 256:
        return f"the model's head size {model.head_dim} is not a multiple of 8 up to 256"
    return settings_obstacle(config)


def settings_obstacle(config: EngineConfig) -> str:
    """Why the native kernels cannot serve any model with these settings; empty if they can."""
    if config.block_size % 16:
        return f"block_size = {config.block_size} is not a multiple of 16"
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
