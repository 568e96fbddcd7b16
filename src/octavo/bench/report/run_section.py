"""Report section on one run: validity, metrics, SLOs, errors, provenance."""

from __future__ import annotations

from collections import Counter
from typing import Any

import msgspec

from octavo.bench.plots import RUN_PLOTS
from octavo.bench.report.parts import Pen, Section, Table, bounded, machine_text
from octavo.bench.run_table import drift, slo_line, slo_targets
from octavo.bench.suite_table import NOTHING, number
from octavo.bench.types import Counts, Interval, Latency, Outcome, Run

MOST_ERRORS = 12  # kinds of errors that are listed
PERCENTILES = ("mean", "p50", "p90", "p99")


def run_section(run: Run, key: str, pen: Pen, *, folded: bool = False, drawn: bool = True) -> Section:
    """``drawn``: with its plots."""
    doubts = [drift(run.summary)] if run.summary.stationary is False else []
    return Section(
        key=key,
        title=run.name or NOTHING,
        verdict=verdict(run),
        bad=not run.valid,
        doubts=[*doubts, *run.summary.warnings],
        facts=_facts(run),
        provenance=_provenance(run),
        tables=[
            table for table in (_latencies(run), _rates(run), _requests(run), _errors(run), _groups(run)) if table.rows
        ],
        notes=run.notes,
        pictures=pen.draw(key, RUN_PLOTS, run) if drawn else (),
        formulas=run.formulas,
        folded=folded,
    )


def verdict(run: Run) -> str:
    return "VALID" if run.valid else f"INVALID: {run.invalid_reason or 'the file gives no reason'}"


def _facts(run: Run) -> list[tuple[str, str]]:
    summary, lag = run.summary, run.client_lag_s
    facts = [
        ("server", f"{run.url} ({run.model})"),
        ("workload", run.workload),
        ("arrivals", f"{run.arrivals}, for {run.duration_s:.1f} s"),
        ("SLO", slo_targets(run)),
        *(("SLO check", slo_line(one)) for one in summary.slo_checks),
        ("client's own lag", f"mean {_ms(lag.mean)}, p99 {_ms(lag.p99)}, at most {_ms(lag.max)}"),
        ("warm-up cut", f"{summary.warm_up_s:.1f} s, {run.requests.warm_up} answered requests"),
    ]
    ttft = summary.ttft_s
    if ttft.effective_mean is not None and ttft.effective_p99 is not None:
        worth = f"{ttft.effective_mean:.0f} independent ones for the mean, {ttft.effective_p99:.0f} for the p99"
        facts.append((f"{ttft.num} TTFTs are worth", worth))
    if summary.tokens_per_chunk is not None:
        facts.append(("tokens per chunk", number(summary.tokens_per_chunk)))
    if summary.jain_fairness is not None:
        facts.append(("fairness over tenants (Jain)", f"{summary.jain_fairness:.3f}"))
    return facts


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.2f} ms"


def _provenance(run: Run) -> list[tuple[str, str]]:
    return [
        ("command", run.command),
        ("date", run.created),
        ("commit", run.commit or "unknown"),
        ("octavo", run.octavo_version),
        ("client's machine", machine_text(run.machine)),
        ("seed", str(run.seed)),
        ("plan digest", run.plan_digest),
    ]


def _latencies(run: Run) -> Table:
    summary = run.summary
    named = (
        ("TTFT", summary.ttft_s),
        ("TPOT", summary.tpot_s),
        ("E2E", summary.e2e_s),
        ("between chunks", summary.inter_chunk_s),
        ("TTFT from the actual send", summary.uncorrected_ttft_s),
        ("E2E from the actual send", summary.uncorrected_e2e_s),
    )
    rows = [
        (name, *(bounded(getattr(latency, one), 1e3) for one in PERCENTILES))
        for name, latency in named
        if latency.mean.value is not None
    ]
    return Table("Latency in ms, with 95 % intervals", ("", *PERCENTILES), rows)


def _rates(run: Run) -> Table:
    summary = run.summary
    named = (
        ("output tokens/s", summary.output_tokens_per_s),
        ("total tokens/s", summary.total_tokens_per_s),
        ("answered requests/s", summary.request_rate_rps),
        ("goodput, requests/s", summary.goodput_rps),
    )
    return Table("Rates, with 95 % intervals", ("", "per second"), [(name, bounded(rate)) for name, rate in named])


def _requests(run: Run) -> Table:
    counts = run.requests
    cancelled = sum(one.outcome is Outcome.CANCELLED for one in run.records)
    row = (str(counts.ok), str(counts.failed), str(counts.timed_out), str(cancelled))
    return Table("Requests", ("ok", "failed", "timed out", "cut off by the end of the run"), [row], num_text=0)


def _errors(run: Run) -> Table:
    """The most frequent first. Failed requests are in no latency."""
    bad = (Outcome.FAILED, Outcome.TIMED_OUT)
    seen = Counter((one.outcome, one.status, one.error or "") for one in run.records if one.outcome in bad)
    rows = [
        (outcome.value.replace("_", " "), NOTHING if status is None else str(status), error or NOTHING, str(count))
        for (outcome, status, error), count in seen.most_common(MOST_ERRORS)
    ]
    if (rest := len(seen) - MOST_ERRORS) > 0:
        others = sum(count for _, count in seen.most_common()[MOST_ERRORS:])
        rows.append((f"{rest} other kinds", NOTHING, NOTHING, str(others)))
    return Table("Errors", ("outcome", "HTTP status", "error", "requests"), rows, num_text=3)


class _Group(msgspec.Struct):
    """Of ``summary.groups``, which is plain data."""

    requests: Counts
    goodput_rps: Interval
    ttft_s: Latency
    tpot_s: Latency
    slo_met_share: float | None = None


def _groups(run: Run) -> Table:
    rows = [(name, *_group(plain)) for name, plain in run.summary.groups.items()]
    headings = (
        "class or tenant",
        "ok",
        "failed",
        "SLO attainment",
        "goodput [1/s]",
        "TTFT p50 [ms]",
        "TTFT p99 [ms]",
        "TPOT p50 [ms]",
    )
    return Table("Classes and tenants", headings, rows)


def _group(plain: dict[str, Any]) -> tuple[Any, ...]:
    try:
        found = msgspec.convert(plain, _Group)
    except msgspec.ValidationError:  # of another version
        return (NOTHING,) * 7
    return (
        str(found.requests.ok),
        str(found.requests.failed + found.requests.timed_out),
        NOTHING if found.slo_met_share is None else f"{found.slo_met_share:.1%}",
        bounded(found.goodput_rps),
        bounded(found.ttft_s.p50, 1e3),
        bounded(found.ttft_s.p99, 1e3),
        bounded(found.tpot_s.p50, 1e3),
    )
