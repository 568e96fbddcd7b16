"""Workload: latency classes and tenants side by side, as an SLO-aware scheduler is judged by."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, ClassVar

import msgspec
import numpy as np
from msgspec import Meta

from octavo.bench.lengths import parse_lengths
from octavo.bench.prompts import Draw
from octavo.bench.types import BenchRequest, Slo
from octavo.bench.workloads.base import Conversation, Workload, one
from octavo.errors import ConfigError


class ServiceClass(msgspec.Struct, frozen=True):
    """What the requests of a class look like and their SLOs, in seconds at ``slo_scale=1``."""

    name: str
    prompt: str
    output: str
    slo: Slo


CLASSES = (
    ServiceClass("interactive", "lognormal(64;0.8;512)", "lognormal(64;0.6;256)", Slo(ttft_s=0.5, tpot_s=0.05)),
    ServiceClass("standard", "lognormal(512;0.8;2048)", "lognormal(128;0.6;512)", Slo(ttft_s=2.0, tpot_s=0.1)),
    ServiceClass("batch", "lognormal(1500;0.6;4096)", "lognormal(256;0.5;1024)", Slo(e2e_s=60.0)),
)

Share = Annotated[float, Meta(ge=0, le=1e6)]


class Mixed(Workload, frozen=True):
    """Three service classes (priority 0, 1, 2, own SLOs) from several tenants, of whom tenant k sends in proportion to 1 / k.

    ``interactive``, ``standard``, ``batch`` are the classes' shares, ``scale`` multiplies all lengths, ``slo_scale`` all
    SLOs.
    """

    LENGTHS: ClassVar[tuple[str, ...]] = ()

    interactive: Share = 0.5
    standard: Share = 0.3
    batch: Share = 0.2
    tenants: Annotated[int, Meta(ge=1, le=10_000)] = 3
    scale: Annotated[float, Meta(gt=0, le=1000)] = 1.0
    slo_scale: Annotated[float, Meta(gt=0, le=1e6)] = 1.0

    def __post_init__(self) -> None:
        if self.interactive + self.standard + self.batch <= 0:
            raise ConfigError("all three shares are 0; give interactive, standard or batch a share")

    def conversations(self, draw: Draw) -> Iterator[Conversation]:
        shares = np.array([self.interactive, self.standard, self.batch])
        harmonic = 1 / np.arange(1, self.tenants + 1)
        while True:
            rank = int(draw.choices.choice(len(CLASSES), p=shares / shares.sum()))
            tenant = int(draw.choices.choice(self.tenants, p=harmonic / harmonic.sum()))
            yield one(self._request(draw, rank, f"tenant-{tenant + 1}"))

    def _request(self, draw: Draw, rank: int, tenant: str) -> BenchRequest:
        kind = CLASSES[rank]
        num_prompt = draw.cut_prompt(self._scaled(draw.count(parse_lengths(kind.prompt))))
        num_output = draw.cut_output(self._scaled(draw.count(parse_lengths(kind.output))))
        return BenchRequest(
            index=0,
            max_tokens=num_output,
            tenant=tenant,
            service_class=kind.name,
            priority=rank,
            slo=self._slo(kind.slo),
            **draw.render(draw.piece(num_prompt)),
        )

    def _scaled(self, num_tokens: int) -> int:
        return max(1, round(num_tokens * self.scale))

    def _slo(self, slo: Slo) -> Slo:
        times = {name: getattr(slo, name) for name in slo.__struct_fields__}
        return Slo(**{name: value * self.slo_scale for name, value in times.items() if value is not None})
