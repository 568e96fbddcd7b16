"""Executor on torch, on the CPU or one GPU: batch, forward pass, sampling, step time."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from octavo.executor.batch import build_batch, decodes_first
from octavo.executor.isolation import run_isolated
from octavo.executor.requests import FinishedStep, RequestState, RequestStates, Row
from octavo.executor.sampling.sampler import Sampler
from octavo.kernels.paged_attention.batch import LayerCache
from octavo.models.batch import ModelBatch
from octavo.types import DraftLimits, Plan, Sample, SamplingParams, Step, StepResult


class Model(Protocol):
    """What the executor needs of ``octavo.models.transformer.Transformer``."""

    def forward(self, batch: ModelBatch, caches: list[LayerCache]) -> Tensor:
        """Write the keys and values of every row into ``caches``; float32 logits ``[S, vocab]`` of ``batch.logit_rows``."""
        ...

    def new_caches(self, num_blocks: int, block_size: int, kv_dtype: torch.dtype) -> list[LayerCache]:
        """One a layer, not initialised: ``[num_blocks, block_size, num_kv_heads, head_dim]`` each."""
        ...


@dataclass(frozen=True, slots=True)
class CacheShape:
    """The KV cache: ``num_blocks`` of ``block_size`` tokens, in ``dtype``."""

    num_blocks: int
    block_size: int
    dtype: torch.dtype


class TorchExecutor:
    """Owns the model's KV cache. A request's tokens are a function of the request alone, whatever else is in the plan."""

    max_in_flight = 1
    draft_limits = DraftLimits()

    def __init__(self, model: Model, cache: CacheShape, device: torch.device) -> None:
        self._model = model
        self._cache = cache
        self._device = device
        self._layers = model.new_caches(cache.num_blocks, cache.block_size, cache.dtype)
        self._sampler = Sampler()
        self._states = RequestStates()

    @property
    def kv_cache_bytes(self) -> int:
        """Keys and values of all layers."""
        return sum(layer.keys.nbytes + layer.values.nbytes for layer in self._layers)

    def launch(self, plan: Plan) -> Step:
        """Computes the step at once. Raises ``torch.AcceleratorError``: the device is lost (see ``run_isolated``)."""
        started_s = time.perf_counter()
        samples = run_isolated(self._step, decodes_first(self._states.rows(plan)), (torch.AcceleratorError,))
        self._states.sampled(samples)
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return FinishedStep(StepResult(samples, time.perf_counter() - started_s))

    def warm_up(self) -> None:
        """Run two tiny steps so that no request pays for lazy initialisation. Overwrites block 0: call before serving."""
        blocks = [0, 0]  # enough even for blocks of one token
        request = RequestState("warm-up", [0, 0], 2, SamplingParams(top_p=0.9, seed=0), 1, block_ids=blocks)
        self._step([Row(request, 0, 2, samples=True)])
        self._step([Row(request, 1, 1, samples=True)])

    def close(self) -> None:
        """Let the KV cache go; the executor cannot run any more."""
        self._layers = []

    @torch.inference_mode()
    def _step(self, requests: Sequence[Row]) -> dict[str, Sample]:
        batch = build_batch(requests, self._cache.block_size, self._device)
        logits = self._model.forward(batch, self._layers)
        return self._sampler.sample(logits, [row.request for row in requests if row.samples])
