"""Execution of a suite's scenarios: interleaved, calibrated, repeated.

A row is a burst or a closed loop of a workload. Repetition r sends fresh prompts (no prefix cache knows them), the same for all
targets. Beside every group (one row, one repetition, all targets) stands a calibration before and one after it; the limit is
taken from the better figures of both. The order of the targets turns from group to group, so that none is always asked first.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, NamedTuple, Protocol

import msgspec

from octavo.bench.calibration import Calibration, faster
from octavo.bench.limits import Limit, ModelFacts, limit_of, work_of
from octavo.bench.plan import PlanOptions, make_plan
from octavo.bench.prompts import PromptOptions
from octavo.bench.scenario_metrics import Measured, Spread, measure
from octavo.bench.scenarios import WARM_UP, WARM_UP_REPEAT, Scenario
from octavo.bench.types import LoadPlan, RequestRecord
from octavo.errors import BenchError, ConfigError, OctavoError

SUITE_SCHEMA_VERSION = 1
MUCH_CACHED = 0.02  # of the prompts: a template or a first token may be the same in all


class PlanResponses(msgspec.Struct, frozen=True, kw_only=True):
    """What came back from one plan."""

    records: list[RequestRecord]
    invalid_reason: str | None = None
    stopped: bool = False  # by the user: the suite ends here


class SuiteTarget(Protocol):
    """What is measured: an engine in this process ("offline") or a server ("http")."""

    name: str

    def run(self, plan: LoadPlan) -> PlanResponses:
        """Send a closed loop of requests and wait for all of them. Raises ``OctavoError`` if it cannot be asked at all."""
        ...


class Repetition(msgspec.Struct, frozen=True, kw_only=True):
    measured: Measured
    limit: Limit | None
    calibration: int  # index of the one before it in the result; the one after it is the next


class PlannedScenario(NamedTuple):
    """A scenario and what its plan says of it: what was cut or repeated."""

    scenario: Scenario
    notes: list[str]


class ScenarioResult(msgspec.Struct, frozen=True, kw_only=True):
    """One row on one target. ``fraction``: achieved / limit, of each repetition by its own calibration."""

    row: str
    target: str
    workload: str
    users: int
    num_requests: int
    repetitions: list[Repetition]
    output_tokens_per_s: Spread | None = None
    decode_tokens_per_s: Spread | None = None
    ttft_s: Spread | None = None
    tpot_s: Spread | None = None
    fraction: Spread | None = None  # output tokens per second / its limit
    decode_fraction: Spread | None = None  # decode phase alone / its limit
    formula: str = ""  # the limit of the last repetition, with its numbers
    bound_by: str = ""
    num_failed: int = 0
    notes: list[str] = []


class SuiteResult(msgspec.Struct, kw_only=True):
    """The result file of a suite."""

    schema_version: int = SUITE_SCHEMA_VERSION
    kind: str = "suite"
    suite: str
    created: str
    command: str
    commit: str
    octavo_version: str
    machine: dict[str, Any]
    seed: int
    complete: bool = True  # False: stopped, or written while it was still going on
    model: ModelFacts | None
    rows: list[ScenarioResult]
    calibrations: list[Calibration]
    http_over_offline: dict[str, Spread] = {}  # row -> output tokens/s by HTTP / offline, of each repetition
    notes: list[str] = []


class SuiteOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How often and with which tokens. ``vocab_high``: random token ids lie below it."""

    repetitions: int = 3
    seed: int = 0
    vocab_low: int = 100
    vocab_high: int = 30_000
    max_context: int | None = None  # prompt and output are cut to fit
    form: str = "tokens"
    warm_up: bool = True

    def __post_init__(self) -> None:
        if self.repetitions < 1:
            raise ConfigError(f"repetitions = {self.repetitions}: expected at least 1", param="repetitions")


def plan_of(row: Scenario, options: SuiteOptions, repeat: int) -> LoadPlan:
    """Repetition ``repeat`` of a row: greedy, output lengths fixed, tokens that no other repetition and no other row has."""
    context = options.max_context
    prompts = PromptOptions(
        form=options.form,
        vocab_low=options.vocab_low,
        vocab_high=options.vocab_high,
        max_prompt_tokens=None if context is None else max(1, context * 3 // 4),
        max_output_tokens=None if context is None else max(1, context // 4),
        repeat=repeat,
    )
    plan = make_plan(
        row.workload,
        f"closed:users={row.users}",
        PlanOptions(
            seed=zlib.crc32(f"{options.seed} {row.name}".encode()), num_requests=row.num_requests, prompts=prompts
        ),
    )
    requests = [
        msgspec.structs.replace(one, extra={"temperature": 0.0}, priority=None, slo=None) for one in plan.requests
    ]
    return msgspec.structs.replace(plan, requests=requests)


Calibrate = Callable[[], Calibration]
Say = Callable[[str], None]


class SuiteRun:
    """Everything measured so far; ``results`` can be asked at any time."""

    def __init__(
        self,
        targets: Sequence[SuiteTarget],
        options: SuiteOptions,
        calibrate: Calibrate,
        facts: ModelFacts | None = None,
        say: Say = lambda line: None,
    ) -> None:
        self._targets, self._options, self._facts = list(targets), options, facts
        self._calibrate, self._say = calibrate, say
        self._kept: dict[tuple[str, str], list[tuple[Measured, Limit | None, int]]] = {}
        self._planned: dict[str, PlannedScenario] = {}
        self.complete = False
        self.calibrations: list[Calibration] = []
        self.dead: dict[str, str] = {}  # target -> why it is asked no more

    def run(self, rows: Sequence[Scenario], keep: Callable[[SuiteRun], None] = lambda run: None) -> None:
        """All repetitions of all rows; ``keep`` is called after each, so that a killed run leaves what it measured.

        A target that cannot be asked any more is left out from there on; raises ``BenchError`` if none was ever answered.
        """
        repeats, turns = range(self._options.repetitions), len(self._targets)
        groups = [(row, repeat, (repeat + i) % turns) for repeat in repeats for i, row in enumerate(rows)]
        with suppress(KeyboardInterrupt):  # what was measured so far stays
            self.complete = (not self._options.warm_up or self._warm_up()) and self._all(groups, keep)
        if not self._kept:
            reasons = "; ".join(f"{name}: {why}" for name, why in self.dead.items())
            raise BenchError(f"nothing was measured: {reasons or 'stopped before the first row had ended'}")

    def _all(self, groups: Sequence[tuple[Scenario, int, int]], keep: Callable[[SuiteRun], None]) -> bool:
        """Whether all were measured: the user may stop it, and there may be nobody left to ask."""
        self.calibrations.append(self._calibrate())
        for group in groups:
            if not self._group(*group):
                return False
            keep(self)
        return True

    def _warm_up(self) -> bool:
        """The first requests of a process, and the first of many at once, pay for caches, threads, pages and compilers:
        unmeasured. False if the user stopped it."""
        for row in WARM_UP:
            for target in self._targets:
                if target.name not in self.dead:
                    answers = self._ask(target, plan_of(row, self._options, WARM_UP_REPEAT))
                    if answers is not None and answers.stopped:
                        return False
        return True

    def _group(self, row: Scenario, repeat: int, first: int) -> bool:
        """One repetition of one row on all targets; False if the user stopped it or nobody is left."""
        plan = plan_of(row, self._options, repeat)
        self._planned[row.name] = PlannedScenario(row, [note for note in plan.notes if not note.startswith("repeat ")])
        answered: list[tuple[str, Measured]] = []
        for target in self._targets[first:] + self._targets[:first]:
            if target.name in self.dead:
                continue
            answers = self._ask(target, plan)
            if answers is None:
                continue
            if answers.stopped:
                return False
            found = measure(plan, answers.records, answers.invalid_reason)
            answered.append((target.name, found))
            self._say(f"{row.name} {repeat + 1}/{self._options.repetitions} {target.name}: {describe(found)}")
        self.calibrations.append(self._calibrate())
        limit = self._limit(plan)
        for name, found in answered:
            self._kept.setdefault((row.name, name), []).append((found, limit, len(self.calibrations) - 2))
        return bool({one.name for one in self._targets} - set(self.dead))

    def _ask(self, target: SuiteTarget, plan: LoadPlan) -> PlanResponses | None:
        try:
            return target.run(plan)
        except OctavoError as error:
            self.dead[target.name] = error.message
            self._say(f"{target.name}: {error.message}")
            return None

    def _limit(self, plan: LoadPlan) -> Limit | None:
        if self._facts is None or any(one.token_ids is None for one in plan.requests):
            return None
        before, after = self.calibrations[-2:]
        return limit_of(work_of(plan, self._facts), self._facts, faster(before, after))

    def results(self) -> list[ScenarioResult]:
        found = []
        for (name, target), kept in self._kept.items():
            planned = self._planned[name]
            if self._options.form != "tokens":
                counted = Spread.of([measured.prompt_tokens for measured, _, _ in kept])
                if counted:
                    note = f"prompts of {counted.median:.0f} tokens by the server's count"
                    planned = PlannedScenario(planned.scenario, [*planned.notes, note])
            repetitions = [Repetition(measured=m, limit=n, calibration=c) for m, n, c in kept]
            found.append(scenario_result(planned, target, repetitions))
        return found


def describe(found: Measured) -> str:
    """One line for a person."""
    if found.output_tokens_per_s is None or found.ttft_s is None:
        return f"no answer ({found.error})"
    text = f"{found.output_tokens_per_s:.1f} output tokens/s, TTFT {found.ttft_s * 1000:.0f} ms"
    return f"{text}, {found.failed} FAILED ({found.error})" if found.failed else text


def scenario_result(planned: PlannedScenario, target: str, repetitions: list[Repetition]) -> ScenarioResult:
    """Spreads over the repetitions."""
    row, notes = planned
    measured = [one.measured for one in repetitions]
    limits = [one.limit for one in repetitions]
    last = next((limit for limit in reversed(limits) if limit is not None), None)
    return ScenarioResult(
        row=row.name,
        target=target,
        workload=row.workload,
        users=row.users,
        num_requests=row.num_requests,
        repetitions=repetitions,
        output_tokens_per_s=Spread.of([one.output_tokens_per_s for one in measured]),
        decode_tokens_per_s=Spread.of([one.decode_tokens_per_s for one in measured]),
        ttft_s=Spread.of([one.ttft_s for one in measured]),
        tpot_s=Spread.of([one.tpot_s for one in measured]),
        fraction=Spread.of([_share(one, "output_tokens_per_s") for one in repetitions]),
        decode_fraction=Spread.of([_share(one, "decode_tokens_per_s") for one in repetitions]),
        formula=last.formula if last else "",
        bound_by=last.bound_by if last else "",
        num_failed=sum(one.failed for one in measured),
        notes=[*notes, *_notes(measured)],
    )


def _share(one: Repetition, name: str) -> float | None:
    achieved, limit = getattr(one.measured, name), getattr(one.limit, name, None)
    return achieved / limit if achieved is not None and limit else None


def _notes(measured: Sequence[Measured]) -> list[str]:
    notes = []
    if early := sum(one.ended_early for one in measured):
        notes.append(f"{early} of {sum(one.ok for one in measured)} answers ended before the asked length")
    if any(one.tokens_are_chunks for one in measured):
        notes.append("the server counts no tokens: chunks were counted")
    cached = max((one.cached_tokens or 0.0) / (one.prompt_tokens or 1.0) for one in measured)
    if cached > MUCH_CACHED:
        notes.append(f"{cached:.0%} of the prompt tokens came from the server's prefix cache")
    errors = dict.fromkeys(one.error for one in measured if one.error)
    notes += [f"failed: {error}" for error in list(errors)[:2]]
    reasons = dict.fromkeys(one.invalid_reason for one in measured if one.invalid_reason)
    return [*notes, *(f"not valid: {reason}" for reason in list(reasons)[:2])]


def ratios(rows: Sequence[ScenarioResult], numerator: str, denominator: str) -> dict[str, Spread]:
    """Scenario -> output tokens per second of one target over another's, repetition by repetition."""
    by_key = {(row.row, row.target): row for row in rows}
    found = {}
    for (name, target), row in by_key.items():
        other = by_key.get((name, denominator))
        if target != numerator or other is None:
            continue
        pairs = zip(row.repetitions, other.repetitions, strict=False)
        rates = [(one.measured.output_tokens_per_s, two.measured.output_tokens_per_s) for one, two in pairs]
        spread = Spread.of([one / two if one and two else None for one, two in rates])
        if spread is not None:
            found[name] = spread
    return found
