"""The result of a run, from load plan and outcome: summary, provenance, validity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from octavo import __version__
from octavo.bench.client.health import lags_s
from octavo.bench.plan import digest
from octavo.bench.provenance import command_line, commit, machine_facts
from octavo.bench.run import RunOutcome
from octavo.bench.summary import FORMULAS, count, summarise
from octavo.bench.types import ClientLag, LoadPlan, Run, Slo


@dataclass(frozen=True)
class Context:
    """What the run is called, whom it asked, its SLO, and the words of the command line."""

    name: str
    url: str
    slo: Slo
    arguments: Sequence[str]


def assemble(plan: LoadPlan, outcome: RunOutcome, context: Context) -> Run:
    """Everything that ``report`` and ``compare`` will ever need."""
    summary = summarise(outcome.records, context.slo, seed=plan.seed)
    lags = np.asarray(lags_s(outcome.records) or [0.0])
    return Run(
        name=context.name,
        url=context.url,
        model=outcome.model,
        created=outcome.created,
        command=command_line(context.arguments),
        commit=commit(),
        machine=machine_facts(),
        octavo_version=__version__,
        seed=plan.seed,
        workload=plan.workload,
        arrivals=plan.arrivals,
        plan_digest=digest(plan),
        slo=context.slo,
        duration_s=outcome.duration_s,
        requests=count(outcome.records, summary.warm_up_s),
        client_lag_s=ClientLag(mean=float(lags.mean()), p99=float(np.quantile(lags, 0.99)), max=float(lags.max())),
        valid=outcome.valid,
        invalid_reason=outcome.invalid_reason,
        summary=summary,
        formulas=FORMULAS,
        notes=list(plan.notes),
        server_metrics=dict(outcome.server_metrics),
        server_series=outcome.server_series,
        records=outcome.records,
    )
