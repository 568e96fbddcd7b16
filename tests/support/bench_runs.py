"""Made-up runs for what reads results: a small queueing simulation gives latencies that look like a server's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from octavo.bench.types import (
    ClientLag,
    Counts,
    Interval,
    Latency,
    Outcome,
    RequestRecord,
    Run,
    Slo,
    Summary,
)

SERVERS = 8  # requests that the made-up server runs at once


def make_records(num: int, rate: float, seed: int = 0, failed: float = 0.0, slow: float = 1.0) -> list[RequestRecord]:
    """Poisson arrivals to a server with eight places: a wait, a prefill, then one token at a time."""
    rng = np.random.default_rng(seed)
    intended = np.cumsum(rng.exponential(1 / rate, num))
    free = np.zeros(SERVERS)
    records = []
    for index, due in enumerate(intended):
        place = int(free.argmin())
        sent = float(due + rng.exponential(0.0004))
        start = max(sent, float(free[place]))
        num_tokens = int(rng.integers(20, 60))
        first = start + slow * float(rng.lognormal(-2.5, 0.4))
        gaps = slow * rng.lognormal(-3.6, 0.3, num_tokens - 1)
        chunks = [first, *(first + np.cumsum(gaps)).tolist()]
        free[place] = chunks[-1]
        record = RequestRecord(
            index=index,
            intended_s=float(due),
            sent_s=sent,
            first_token_s=first,
            end_s=chunks[-1],
            chunk_s=chunks,
            chunk_tokens=[1] * num_tokens,
            status=200,
            prompt_tokens=int(rng.integers(50, 400)),
            output_tokens=num_tokens,
            finish_reason="length",
            tenant=("acme", "beta", "coda")[index % 3],
            service_class=("interactive", "batch")[index % 4 == 3],
        )
        if rng.random() < failed:
            record.outcome, record.status, record.error = Outcome.FAILED, 503, "the queue is full"
            record.first_token_s, record.chunk_s, record.chunk_tokens = None, [], []
            record.output_tokens, record.end_s = None, sent + 0.01
        records.append(record)
    return records


def interval(values: Sequence[float], statistic: Callable[[Any], Any] = np.mean, seed: int = 0) -> Interval:
    """A plain bootstrap: enough to draw."""
    if not values:
        return Interval(None, None, None)
    rng = np.random.default_rng(seed)
    data = np.asarray(values)
    samples = [statistic(rng.choice(data, len(data))) for _ in range(100)]
    low, high = np.percentile(samples, [2.5, 97.5])
    return Interval(float(statistic(data)), float(low), float(high))


def latency(values: Sequence[float]) -> Latency:
    quantiles = {f"p{q}": interval(values, lambda data, q=q: np.percentile(data, q)) for q in (50, 90, 99)}
    return Latency(mean=interval(values), **quantiles)


def make_summary(records: Sequence[RequestRecord], duration_s: float, slo: Slo) -> Summary:
    ok = [record for record in records if record.outcome is Outcome.OK]
    column = {
        name: [value for record in ok if (value := getattr(record, name)) is not None]
        for name in ("ttft_s", "tpot_s", "e2e_s", "uncorrected_ttft_s", "uncorrected_e2e_s")
    }
    gaps = [float(gap) for record in ok for gap in np.diff(record.chunk_s)]

    def rate(values: Sequence[float]) -> Interval:
        total = sum(values) / duration_s
        return Interval(total, total * 0.95, total * 1.05)

    good = [record for record in ok if slo.ttft_s is None or (record.ttft_s or 0) <= slo.ttft_s]
    return Summary(
        **{name: latency(values) for name, values in column.items()},
        inter_chunk_s=latency(gaps[:2000]),
        goodput_rps=rate([1.0] * len(good)),
        output_tokens_per_s=rate([float(record.output_tokens or 0) for record in ok]),
        total_tokens_per_s=rate([float((record.output_tokens or 0) + (record.prompt_tokens or 0)) for record in ok]),
        request_rate_rps=rate([1.0] * len(ok)),
        tokens_per_chunk=1.0,
        jain_fairness=0.98,
        warm_up_s=2.0,
        stationary=True,
        slope_p_value=0.4,
    )


def make_run(
    records: list[RequestRecord] | None = None, *, rate: float = 4.0, name: str = "octavo", **more: Any
) -> Run:
    """A run of ``records`` (default: 200 at ``rate``); ``more`` overrides any field."""
    records = make_records(200, rate) if records is None else records
    duration_s = max((record.end_s or record.sent_s for record in records), default=1.0)
    slo = more.pop("slo", Slo(ttft_s=0.5, tpot_s=0.05))
    by_outcome = {kind: sum(record.outcome is kind for record in records) for kind in Outcome}
    lags = [record.client_lag_s for record in records] or [0.0]
    grid = np.linspace(0, duration_s, 100)
    fields: dict[str, Any] = {
        "name": name,
        "url": "http://127.0.0.1:8000",
        "model": "smollm2-135m-instruct",
        "created": "2026-11-21T09:00:00Z",
        "command": f"octavo bench run --rate {rate:g} --workload chat",
        "commit": "0123456789ab",
        "machine": {"cpu": "Example CPU", "num_cores": 2, "memory_bytes": 8 << 30, "gpus": []},
        "octavo_version": "0.1.0",
        "seed": 1,
        "workload": "chat",
        "arrivals": f"poisson:rate={rate:g}",
        "plan_digest": "ab" * 32,
        "slo": slo,
        "duration_s": duration_s,
        "requests": Counts(
            ok=by_outcome[Outcome.OK],
            failed=by_outcome[Outcome.FAILED],
            timed_out=by_outcome[Outcome.TIMED_OUT],
        ),
        "client_lag_s": ClientLag(
            mean=float(np.mean(lags)), p99=float(np.percentile(lags, 99)), max=float(np.max(lags))
        ),
        "valid": True,
        "invalid_reason": None,
        "summary": make_summary(records, duration_s, slo),
        "formulas": {"ttft_s": "first non-empty token - intended send", "tpot_s": "(E2E - TTFT) / (n - 1)"},
        "server_series": [
            {
                "t_s": float(t),
                "running": float(min(SERVERS, sum(r.sent_s <= t < (r.end_s or 0) for r in records))),
                "waiting": float(max(0, sum(r.sent_s <= t < (r.end_s or 0) for r in records) - SERVERS)),
            }
            for t in grid
        ],
        "records": records,
    }
    return Run(**(fields | more))
