"""Runs of a made-up server whose true speed, noise between runs and correlation inside them are known: for compare and sweep."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from octavo.bench.types import ClientLag, Counts, Interval, Latency, RequestRecord, Run, Slo, Summary
from support.latency_processes import SIGMA, lognormal

NOTHING = Interval(None, None, None)


def interval(value: float, width: float = 0.1) -> Interval:
    return Interval(value, value * (1 - width / 2), value * (1 + width / 2))


def latency(p50: float, p99: float) -> Latency:
    return Latency(mean=interval(p50), p50=interval(p50), p90=interval(p99), p99=interval(p99))


def summary(**more: Any) -> Summary:
    fields: dict[str, Any] = {
        "ttft_s": latency(0.1, 0.4),
        "tpot_s": latency(0.02, 0.03),
        "e2e_s": latency(1.4, 2.0),
        "inter_chunk_s": latency(0.02, 0.05),
        "uncorrected_ttft_s": latency(0.1, 0.4),
        "uncorrected_e2e_s": latency(1.4, 2.0),
        "goodput_rps": interval(3.9),
        "output_tokens_per_s": interval(256.0),
        "total_tokens_per_s": interval(512.0),
        "request_rate_rps": interval(4.0),
        "stationary": True,
    }
    return Summary(**(fields | more))


def run(found: Summary | None = None, **more: Any) -> Run:
    fields: dict[str, Any] = {
        "name": "octavo",
        "url": "http://127.0.0.1:8000",
        "model": "m",
        "created": "2026-11-21T09:00:00Z",
        "command": "octavo bench run",
        "commit": "0123456789ab",
        "machine": {"cpu": "Example CPU", "num_cores": 2},
        "octavo_version": "0.1.0",
        "seed": 1,
        "workload": "chat",
        "arrivals": "poisson:rate=4",
        "plan_digest": "ab" * 32,
        "slo": Slo(),
        "duration_s": 60.0,
        "requests": Counts(ok=240, failed=0, timed_out=0),
        "client_lag_s": ClientLag(mean=0.0, p99=0.0, max=0.0),
        "valid": True,
        "invalid_reason": None,
        "summary": found or summary(),
        "formulas": {},
    }
    return Run(**(fields | more))


@dataclass(frozen=True)
class Server:
    """Median TTFT 100 ms and TPOT 20 ms times ``slowness``; every run is faster or slower as a whole by ``between`` (standard
    deviation of the logarithm); TTFT varies between requests as an AR(1) lognormal, TPOT by a tenth of it."""

    slowness: float = 1.0
    between: float = 0.02
    size: int = 1000
    correlation: float = 0.5
    spread: float = SIGMA  # of the logarithm of TTFT between requests
    closed: bool = False  # a closed loop with an SLO: throughput and goodput are tested as well

    def measure(self, rng: np.random.Generator, created: str = "2026-11-21T09:00:00Z") -> Run:
        factor = self.slowness * float(np.exp(self.between * rng.standard_normal()))
        draw = lognormal(self.correlation).draw
        ttft = 0.1 * factor * draw(rng, self.size) ** (self.spread / SIGMA)
        tpot = 0.02 * factor * draw(rng, self.size) ** (0.1 * self.spread / SIGMA)
        e2e = ttft + 64 * tpot
        rate = 4.0 * float(np.exp(0.005 * rng.standard_normal()))  # as if it were offered
        good = rate * float(np.mean(ttft < 0.3)) if self.closed else rate
        found = summary(
            **{
                name: latency(*np.quantile(values, [0.5, 0.99]).tolist())
                for name, values in (("ttft_s", ttft), ("tpot_s", tpot), ("e2e_s", e2e))
            },
            goodput_rps=interval(good),
            request_rate_rps=interval(rate),
            output_tokens_per_s=interval(rate * 64),
        )
        more = {"arrivals": "closed:users=8", "slo": Slo(ttft_s=0.3)} if self.closed else {}
        return run(found, created=created, **more)


def interleaved(first: Server, second: Server, num_runs: int, rng: np.random.Generator) -> dict[str, list[Run]]:
    """A B A B ..., each a minute after the one before."""
    times = [f"2026-11-21T{9 + minute // 60:02d}:{minute % 60:02d}:00Z" for minute in range(2 * num_runs)]
    return {
        "A": [first.measure(rng, times[2 * i]) for i in range(num_runs)],
        "B": [second.measure(rng, times[2 * i + 1]) for i in range(num_runs)],
    }


def queue_records(rate: float, capacity: float, num: int, rng: np.random.Generator) -> list[RequestRecord]:
    """One server that answers ``capacity`` requests/s (gamma service, cv 0.5), Poisson arrivals, first come first served."""
    due = np.cumsum(rng.exponential(1 / rate, num))
    service = rng.gamma(4.0, 1 / (4 * capacity), num)
    end = 0.0
    records = []
    for index in range(num):
        start = max(end, float(due[index]))
        end = start + float(service[index])
        records.append(
            RequestRecord(
                index=index, intended_s=float(due[index]), sent_s=float(due[index]), first_token_s=end - 1e-4, end_s=end,
                chunk_s=[end - 1e-4, end], chunk_tokens=[1, 1], output_tokens=2,
            )
        )  # fmt: skip
    return records
