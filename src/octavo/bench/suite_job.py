"""One execution of a suite, from scenarios to result: options for the model, calibration, provenance, partial results."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from octavo.bench.calibration import Calibration, calibrate
from octavo.bench.limits import ModelFacts
from octavo.bench.scenarios import Scenario
from octavo.bench.suite import Say, SuiteOptions, SuiteResult, SuiteRun, SuiteTarget, ratios

LARGEST_TOKEN_ID = 30_000  # of random prompts, where the vocabulary is not smaller


@dataclass(frozen=True)
class SuiteJob:
    """What will be measured. ``origin``: see ``provenance.origin``."""

    suite: str
    scenarios: tuple[Scenario, ...]
    repetitions: int
    seed: int
    origin: dict[str, Any]
    form: str = "tokens"
    num_threads: int | None = None
    vocab_size: int = LARGEST_TOKEN_ID
    max_context: int | None = None

    def options(self) -> SuiteOptions:
        return SuiteOptions(
            repetitions=self.repetitions,
            seed=self.seed,
            vocab_high=min(LARGEST_TOKEN_ID, self.vocab_size),
            max_context=self.max_context,
            form=self.form,
        )


def run_suite(
    job: SuiteJob,
    targets: Sequence[SuiteTarget],
    facts: ModelFacts | None,
    keep: Callable[[SuiteResult], None],
    say: Say,
) -> SuiteResult:
    """``keep`` gets what there is after every group. Raises ``BenchError`` if nothing was measured."""

    def result(run: SuiteRun) -> SuiteResult:
        rows = run.results()
        return SuiteResult(
            suite=job.suite,
            seed=job.seed,
            complete=run.complete,
            model=facts,
            rows=rows,
            calibrations=run.calibrations,
            http_over_offline=ratios(rows, "http", "offline"),
            notes=[f"{name} was asked no more: {why}" for name, why in run.dead.items()],
            **job.origin,
        )

    def calibrated() -> Calibration:
        return calibrate(job.num_threads, weight_bytes=facts.weight_bytes if facts is not None else 0)

    run = SuiteRun(targets, job.options(), calibrated, facts, say)
    run.run(job.scenarios, lambda run: keep(result(run)))
    return result(run)
