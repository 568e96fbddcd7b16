"""Executor factory: resolved config -> executor; a new executor is one builder and one entry in ``BUILDERS``.

Heavy imports happen inside the builders: the fake executor needs no torch.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from octavo.config import EngineConfig
from octavo.errors import ConfigError
from octavo.executor.fake import FakeExecutor
from octavo.executor.threads import calm_threads
from octavo.folders import cache_folder
from octavo.types import Executor

FAKE_VOCAB_SIZE = 512
TORCH_EXECUTORS = ("cpu", "cuda")
NEEDS_TORCH = "the torch executors need"
NEEDS_TRITON = "executor = cuda needs"


@dataclass(frozen=True, slots=True)
class BuiltExecutor:
    """An executor and what it holds."""

    executor: Executor
    weight_bytes: int = 0
    kv_cache_bytes: int = 0


def build_executor(config: EngineConfig, model_path: Path | None) -> BuiltExecutor:
    """``config`` without any auto (see ``engine.resolve``); ``model_path`` is None for the fake executor alone.

    Raises ``ConfigError`` for an unknown executor and ``ModelError`` for a model that cannot be loaded.
    """
    builder = BUILDERS.get(config.executor)
    if builder is None:
        raise ConfigError(f"unknown executor {config.executor!r}; known: {', '.join(BUILDERS)}", param="executor")
    return builder(config, model_path)


def _build_fake(config: EngineConfig, model_path: Path | None) -> BuiltExecutor:
    step_time_s, max_in_flight = config.fake_step_ms / 1000, config.fake_steps_in_flight
    return BuiltExecutor(
        FakeExecutor(FAKE_VOCAB_SIZE, step_time_s, block_size=config.block_size, max_in_flight=max_in_flight)
    )


def _build_torch(config: EngineConfig, model_path: Path | None) -> BuiltExecutor:
    if model_path is None:
        raise ConfigError(f"executor = {config.executor} needs a model, got none", param="executor")
    calm_threads(os.environ)
    import torch

    from octavo.executor.torch_executor import CacheShape, TorchExecutor
    from octavo.models.load import load_model

    if config.num_threads:
        torch.set_num_threads(config.num_threads)
    dtypes = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    device = torch.device(config.executor)
    model = load_model(model_path, dtypes[config.dtype], device)
    cache = CacheShape(config.num_blocks, config.block_size, dtypes[config.kv_dtype])
    executor = TorchExecutor(model, cache, device)
    executor.warm_up()
    return BuiltExecutor(executor, model.weight_bytes, executor.kv_cache_bytes)


def _build_native(config: EngineConfig, model_path: Path | None) -> BuiltExecutor:
    if model_path is None:
        raise ConfigError("executor = native needs a model, got none", param="executor")
    from octavo.executor.native_cache import KV_TYPES, NativeCache
    from octavo.executor.native_executor import NativeExecutor
    from octavo.executor.native_step import NativeStep, StepLimits
    from octavo.executor.prompt_lookup import MAX_ROWS
    from octavo.kernels.native.structs import KvShape
    from octavo.models.load import load_packed

    model = load_packed(model_path, config.dtype, cache_folder() / "packed")
    shape = KvShape(
        KV_TYPES[config.kv_dtype],
        config.num_blocks,
        config.block_size,
        model.config.num_kv_heads,
        model.config.head_dim,
    )
    cache = NativeCache(shape, model.config.num_layers)
    limits = StepLimits(max(config.max_step_tokens, MAX_ROWS), max(config.max_num_running, MAX_ROWS))
    step = NativeStep(model, cache, limits, config.num_threads)
    executor = NativeExecutor(step, config.block_size, config.num_draft_tokens)
    executor.warm_up()
    return BuiltExecutor(executor, model.weight_bytes, cache.num_bytes)


Builder = Callable[[EngineConfig, Path | None], BuiltExecutor]

BUILDERS: Mapping[str, Builder] = MappingProxyType(
    {"fake": _build_fake, "native": _build_native, "cpu": _build_torch, "cuda": _build_torch}
)
