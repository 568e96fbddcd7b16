"""Construction of an engine from config and model path: executor, KV cache, scheduler, resolved settings."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path

from octavo.config import EngineConfig
from octavo.engine.core import Engine
from octavo.engine.resolve import FAKE_MODEL, Resolution, resolve
from octavo.engine.submission import RequestDefaults
from octavo.errors import ConfigError
from octavo.executor.factory import build_executor
from octavo.extras import is_installed
from octavo.hardware import Hardware, detect
from octavo.kernels.native import library
from octavo.kvcache.cache import KVCache
from octavo.models.load import read_config
from octavo.scheduler.admission import Admission, TenantLimits
from octavo.scheduler.classes import ServiceClasses, parse_classes
from octavo.scheduler.forecast import Forecast
from octavo.scheduler.policies import make_policy
from octavo.scheduler.scheduler import Scheduler
from octavo.types import DraftLimits, EngineInfo


@dataclass(frozen=True, slots=True)
class BuiltEngine:
    """A loaded engine and why its ``auto`` settings are what they are."""

    engine: Engine
    resolution: Resolution


def usable_hardware() -> Hardware:
    """What this machine has, and the installed torch, Triton and native kernels can use."""
    hardware = replace(detect(), native_isa=library.best_isa(), has_torch=is_installed("torch"))
    if hardware.gpus and not (hardware.has_torch and is_installed("triton") and _torch_can_use_gpus()):
        return replace(hardware, gpus=())
    return hardware


def _torch_can_use_gpus() -> bool:
    import torch

    return torch.cuda.is_available()


def build_engine(config: EngineConfig, name: str, path: Path | None, eos_token_ids: frozenset[int]) -> BuiltEngine:
    """Load the model at ``path`` (None with ``executor = fake``). Raises ``ConfigError`` or ``ModelError``."""
    started_s = time.monotonic()
    model = FAKE_MODEL if path is None else read_config(path)
    resolution = resolve(config, model, usable_hardware())
    settings = resolution.config
    built = build_executor(settings, path)
    classes = read_classes(settings.classes)
    scheduler = _scheduler(settings, classes, built.executor.draft_limits)
    info = EngineInfo(
        model=name,
        vocab_size=model.vocab_size,
        max_model_len=settings.max_model_len,
        block_size=settings.block_size,
        num_blocks=settings.num_blocks,
        dtype=settings.dtype,
        kv_dtype=settings.kv_dtype,
        device=settings.executor,
        weight_bytes=built.weight_bytes,
        kv_cache_bytes=built.kv_cache_bytes,
        load_s=time.monotonic() - started_s,
    )
    engine = Engine(scheduler, built.executor, info, RequestDefaults(eos_token_ids, settings.seed, classes))
    return BuiltEngine(engine, resolution)


def read_classes(path: str) -> ServiceClasses:
    """From a TOML file, or those built in. Raises ``ConfigError``."""
    if not path:
        return ServiceClasses()
    try:
        return parse_classes(Path(path).expanduser().read_text(encoding="utf-8"), path)
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise ConfigError(f"classes {path}: {why}", param="classes") from None


def _scheduler(settings: EngineConfig, classes: ServiceClasses, draft_limits: DraftLimits) -> Scheduler:
    forecast = Forecast(classes=classes.all)
    limits = TenantLimits(
        requests_per_s=settings.tenant_requests_per_s,
        tokens_per_s=settings.tenant_tokens_per_s,
        max_requests=settings.tenant_max_requests,
        kv_share=settings.tenant_kv_share,
    )
    kv_tokens = settings.num_blocks * settings.block_size
    return Scheduler(
        make_policy(settings.policy, forecast),
        KVCache(settings.num_blocks, settings.block_size, prefix_cache=settings.prefix_cache),
        max_num_running=settings.max_num_running,
        max_step_tokens=settings.max_step_tokens,
        admission=Admission(forecast, limits, classes.all, kv_tokens=kv_tokens),
        draft_limits=draft_limits,
    )
