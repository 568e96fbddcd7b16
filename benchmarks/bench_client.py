"""Benchmark of the load generator: requests and stream events per second against a stub server in a second process.

    python benchmarks/bench_client.py [--seconds 5]

Three figures: streamed requests per second (16 users, 8 chunks each, sent in one piece); chunks per second (64 streams, each
chunk a write of its own); send lag at 200 requests per second. CPU time per request and per chunk stand beside the rates:
on a machine that is shared the rates say how much of it was free, the CPU times what the work costs.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from octavo.bench.client.health import lags_s
from octavo.bench.client.options import ClientOptions
from octavo.bench.client.target import Target
from octavo.bench.run import RunOutcome, run_blocking
from octavo.bench.types import BenchRequest, LoadPlan, Outcome
from support.stub_server import StubConfig, StubProcess

MESSAGES = [{"role": "user", "content": "How fast is a load generator? " * 10}]


def closed(users: int, max_tokens: int, seconds: float) -> LoadPlan:
    """More requests than can be sent in the time."""
    count = int(20_000 * seconds) if max_tokens < 100 else int(2_000 * seconds)
    requests = [BenchRequest(index=i, messages=MESSAGES, max_tokens=max_tokens) for i in range(count)]
    return LoadPlan(
        workload="client benchmark",
        arrivals=f"closed:{users}",
        seed=0,
        requests=requests,
        send_s=[None] * count,
        concurrency=users,
        duration_s=seconds,
    )


def constant(rate_rps: float, max_tokens: int, seconds: float) -> LoadPlan:
    count = int(rate_rps * seconds)
    requests = [BenchRequest(index=i, messages=MESSAGES, max_tokens=max_tokens) for i in range(count)]
    return LoadPlan(
        workload="client benchmark",
        arrivals=f"constant:{rate_rps:g}",
        seed=0,
        requests=requests,
        send_s=[i / rate_rps for i in range(count)],
    )


def waited_s() -> float:
    """How long this process was ready to run but had no core (Linux), so far."""
    try:
        return int(Path("/proc/self/schedstat").read_text().split()[1]) / 1e9
    except (OSError, IndexError, ValueError):
        return 0.0


def measure(stub: StubConfig, plan: LoadPlan) -> RunOutcome:
    with StubProcess(stub) as server:
        outcome = run_blocking(plan, Target(url=server.url), ClientOptions(request_timeout_s=60))
    assert all(record.outcome is Outcome.OK for record in outcome.records), outcome.invalid_reason
    return outcome


def figures(seconds: float) -> dict[str, Any]:
    requests = measure(StubConfig(), closed(16, 8, seconds))
    chunks = measure(StubConfig(ttft="fixed:0.001", chunk_interval_s=0.001), closed(64, 128, seconds))
    waited = waited_s()
    paced = measure(StubConfig(ttft="fixed:0.02", chunk_interval_s=0.01), constant(200.0, 16, seconds))
    waited = waited_s() - waited
    num_chunks = sum(len(record.chunk_s) for record in chunks.records)
    lags_ms = [lag_s * 1e3 for lag_s in lags_s(paced.records)]
    return {
        "requests_per_s": len(requests.records) / requests.duration_s,
        "cpu_us_per_request": requests.client["cpu_s"] / len(requests.records) * 1e6,
        "chunks_per_s": num_chunks / chunks.duration_s,
        "cpu_us_per_chunk": chunks.client["cpu_s"] / num_chunks * 1e6,
        "lag_ms": {name: float(np.quantile(lags_ms, q)) for name, q in (("p50", 0.5), ("p99", 0.99), ("max", 1.0))},
        "cpu_share_at_200_rps": paced.client["cpu_s"] / paced.duration_s,
        "without_a_core_share": waited / paced.duration_s,
        "valid_at_200_rps": paced.valid,
    }


def describe(found: dict[str, Any]) -> list[str]:
    lag = found["lag_ms"]
    return [
        f"{found['requests_per_s']:.0f} streamed requests/s, {found['cpu_us_per_request']:.0f} us of CPU each",
        f"{found['chunks_per_s']:.0f} chunks/s, {found['cpu_us_per_chunk']:.1f} us of CPU each",
        f"send lag at 200 requests/s: p50 {lag['p50']:.2f} ms, p99 {lag['p99']:.2f} ms, max {lag['max']:.2f} ms; "
        f"{found['cpu_share_at_200_rps']:.0%} of a core; {'valid' if found['valid_at_200_rps'] else 'invalid'}; other programs "
        f"kept it waiting for a core {found['without_a_core_share']:.1%} of the time",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5.0)
    print("\n".join(describe(figures(parser.parse_args().seconds))))


if __name__ == "__main__":
    main()
