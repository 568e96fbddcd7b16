"""The terminal output of a finished run: metrics with their intervals, SLO attainment, validity, warnings."""

from __future__ import annotations

from rich.table import Table

from octavo.bench.statistics.knee import Knee
from octavo.bench.types import Interval, Latency, Outcome, Run, SloCheck, Summary


def run_table(run: Run) -> Table:
    """Latencies in milliseconds, rates per second; every value with its 95 % interval."""
    table = Table(box=None, pad_edge=False)
    for heading in ("", "mean", "p50", "p90", "p99"):
        table.add_column(heading, justify="left" if not heading else "right", no_wrap=True)
    summary = run.summary
    for name, latency in (
        ("TTFT ms", summary.ttft_s),
        ("TPOT ms", summary.tpot_s),
        ("E2E ms", summary.e2e_s),
        ("between chunks ms", summary.inter_chunk_s),
        ("TTFT from actual send ms", summary.uncorrected_ttft_s),
    ):
        table.add_row(name, *_latency(latency))
    return table


def _latency(latency: Latency) -> list[str]:
    return [_interval(one, 1e3) for one in (latency.mean, latency.p50, latency.p90, latency.p99)]


def _interval(interval: Interval, scale: float = 1.0) -> str:
    if interval.value is None:
        return "-"
    value = f"{interval.value * scale:.4g}"
    if interval.low is None or interval.high is None:
        return value
    return f"{value} [{interval.low * scale:.4g}, {interval.high * scale:.4g}]"


def run_lines(run: Run) -> list[str]:
    """Counts, rates, the SLO, and whether all this can be trusted."""
    counts, summary = run.requests, run.summary
    lines = [
        f"{run.name}: {run.workload}, {run.arrivals}, at {run.url} ({run.model})",
        f"requests: {counts.ok} ok ({counts.warm_up} in the warm-up, cut), {counts.failed} failed, {counts.timed_out} timed out",
        f"output tokens/s: {_interval(summary.output_tokens_per_s)}, total tokens/s: {_interval(summary.total_tokens_per_s)}",
        f"goodput: {_interval(summary.goodput_rps)} of {_interval(summary.request_rate_rps)} requests/s met {slo_targets(run)}",
        f"client lag p99: {run.client_lag_s.p99 * 1e3:.2f} ms",
    ]
    ttft = summary.ttft_s
    if ttft.effective_mean is not None and ttft.effective_p99 is not None:
        lines.append(
            f"{ttft.num} TTFTs: worth {ttft.effective_mean:.0f} independent ones for the mean, "
            f"{ttft.effective_p99:.0f} for the p99"
        )
    lines += [slo_line(one) for one in summary.slo_checks]
    if first := next((one.error for one in run.records if one.error and one.outcome is not Outcome.CANCELLED), None):
        lines.append(f"first error: {first}")
    if summary.stationary is False:
        lines.append(drift(summary))
    lines += [f"! {warning}" for warning in summary.warnings]
    lines += [f"note: {note}" for note in run.notes]
    if not run.valid:
        lines.append(f"INVALID: {run.invalid_reason}")
    return lines


def drift(summary: Summary) -> str:
    """Of a run that is not stationary."""
    p_value = "" if summary.slope_p_value is None else f" (p = {summary.slope_p_value:.2g})"
    return f"not stationary{p_value}: latencies drift, so these metrics depend on the duration"


def knee_line(knee: Knee | None) -> str:
    if knee is None:
        return "knee: needs three valid rates or more"
    where = f"knee: {knee.load:.4g} answered requests/s, where throughput / median E2E is greatest"
    return where if knee.reached else f"{where}; that is the highest load tried, so the bend may lie beyond"


def slo_line(check: SloCheck) -> str:
    """``p99 of TTFT <= 500 ms: shown (0 of 720 requests over, worth 650 independent ones)``."""
    name = check.what.removesuffix("_s").upper()
    what = f"p{check.share * 100:g} of {name} <= {(check.limit_s or 0.0) * 1e3:g} ms"
    if check.limit_s is None:
        what = f"all SLO targets of a request, for {check.share:.0%} of requests"
    if check.attained:
        verdict = f"shown with {check.confidence:.0%} confidence"
    elif check.num_needed == 0:
        verdict = f"violated, {1 - check.num_over / check.num_requests:.1%} within it"
    else:
        verdict = f"not shown, about {check.num_needed} such requests would"
    seen = f"{check.num_over} of {check.num_requests} requests over"
    return f"{what}: {verdict} ({seen}, worth {check.effective_requests:.0f} independent ones)"


def slo_targets(run: Run) -> str:
    """``TTFT <= 500 ms, TPOT <= 50 ms``."""
    parts = [
        f"{name} <= {limit * 1e3:g} ms"
        for name, limit in (("TTFT", run.slo.ttft_s), ("TPOT", run.slo.tpot_s), ("E2E", run.slo.e2e_s))
        if limit is not None
    ]
    if any(one.slo is not None for one in run.records):
        parts.append("else their own SLOs" if parts else "their own SLOs")
    return ", ".join(parts) or "no SLO (all answered count)"
