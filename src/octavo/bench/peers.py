"""Comparison of several servers on the same scenarios, strictly interleaved (A B C, A B C, ...).

A ratio is taken within each round, where both servers met the same machine. Its 95 % interval is Student's t on the logarithms of
the rounds' ratios (paired): it assumes that they scatter normally, and with three rounds it is wide.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from octavo.bench.calibration import Calibration
from octavo.bench.client.target import Target
from octavo.bench.http_target import Abilities, HttpTarget, asked_form, common_form, probe
from octavo.bench.scenarios import Scenario
from octavo.bench.suite import Calibrate, Say, ScenarioResult, SuiteOptions, SuiteRun
from octavo.bench.types import Interval
from octavo.errors import BenchError, ConfigError, OctavoError

PEERS_SCHEMA_VERSION = 1


class Peer(msgspec.Struct, kw_only=True):
    """A server and what became of it."""

    name: str
    url: str
    served: str = ""  # the model to ask for; empty: the first that the server lists
    abilities: Abilities | None = None
    command: str = ""  # if it was started here
    ready_s: float | None = None
    peak_rss_bytes: int | None = None
    idle_cores: float | None = None  # cores that it keeps busy while it is asked nothing
    dead: str = ""  # why it was asked no more


class PeerRatio(msgspec.Struct, frozen=True, kw_only=True):
    """Of one metric, ``peer`` over the first peer, with the geometric mean over rounds as value."""

    row: str
    peer: str
    baseline: str
    metric: str
    ratio: Interval
    num_rounds: int


class PeersResult(msgspec.Struct, kw_only=True):
    """The result file of a comparison of servers."""

    schema_version: int = PEERS_SCHEMA_VERSION
    kind: str = "peers"
    suite: str
    created: str
    command: str
    commit: str
    octavo_version: str
    machine: dict[str, Any]
    seed: int
    form: str  # of the prompts: tokens, text, messages
    complete: bool = True  # False: stopped, or written while it was still going on
    peers: list[Peer]
    rows: list[ScenarioResult]
    ratios: list[PeerRatio]
    calibrations: list[Calibration]
    notes: list[str] = []


def parse_pairs(items: Sequence[str], what: str) -> dict[str, str]:
    """``name=value`` words. Raises ``ConfigError`` for a word without a name, and for a name that comes twice."""
    pairs: dict[str, str] = {}
    for item in items:
        name, equals, value = item.partition("=")
        if not (name and equals and value) or "/" in name:
            raise ConfigError(f"{item!r} is not {what}; write it as name={what}", param=what)
        if name in pairs:
            raise ConfigError(f"{name!r} is given twice", param=what)
        pairs[name] = value
    return pairs


class PeersComparison(msgspec.Struct, frozen=True, kw_only=True):
    """What came out; ``form`` is that of the prompts."""

    form: str
    complete: bool
    rows: list[ScenarioResult]
    calibrations: list[Calibration]
    ratios: list[PeerRatio]


@dataclass(frozen=True, slots=True)
class Watch:
    """Who is told: ``say`` one line of progress, ``keep`` all that is known after every group."""

    say: Say = lambda line: None
    keep: Callable[[PeersComparison], None] = lambda compared: None


def compare_peers(
    peers: Sequence[Peer],
    rows: Sequence[Scenario],
    options: SuiteOptions,
    calibrate: Calibrate,
    watch: Watch | None = None,
    api_keys: dict[str, str] | None = None,
) -> PeersComparison:
    """Probe all, then run the rows on those that answer; sets ``abilities`` and ``dead`` of the peers.

    ``options.form`` "auto": the most exact form of prompts that all take. Raises ``BenchError`` if nobody answers, or if one
    does not take the form that was asked for.
    """
    watch = watch or Watch()
    targets = _reach(peers, watch.say, api_keys or {})
    abilities = [target.abilities for target in targets if target.abilities is not None]
    form = common_form(abilities) if options.form == "auto" else asked_form(options.form, abilities)
    run = SuiteRun(targets, msgspec.structs.replace(options, form=form), calibrate, say=watch.say)

    def so_far(run: SuiteRun) -> PeersComparison:
        for peer in peers:
            peer.dead = peer.dead or run.dead.get(peer.name, "")
        results = run.results()
        return PeersComparison(
            form=form,
            complete=run.complete,
            rows=results,
            calibrations=run.calibrations,
            ratios=paired_ratios(results, [peer.name for peer in peers]),
        )

    run.run(rows, lambda run: watch.keep(so_far(run)))
    return so_far(run)


def _reach(peers: Sequence[Peer], say: Say, api_keys: dict[str, str]) -> list[HttpTarget]:
    """Those that answer a probe. Raises ``BenchError`` if none does."""
    targets = []
    for peer in peers:
        if peer.dead:  # it did not even start
            continue
        target = Target(url=peer.url, model=peer.served, api_key=api_keys.get(peer.name, ""))
        try:
            peer.abilities = probe(target)
        except OctavoError as error:
            peer.dead = error.message
            say(f"{peer.name}: {error.message}")
            continue
        say(f"{peer.name}: {peer.abilities.model}, {peer.abilities.describe()}")
        targets.append(HttpTarget(peer.name, target, peer.abilities))
    if not targets:
        raise BenchError(f"no server answers: {'; '.join(f'{peer.name}: {peer.dead}' for peer in peers)}")
    return targets


METRICS = ("output_tokens_per_s", "decode_tokens_per_s", "ttft_s")


def paired_ratios(rows: Sequence[ScenarioResult], names: Sequence[str]) -> list[PeerRatio]:
    """Every peer over the first one that has the row; only rounds that both answered in full count."""
    found = []
    by_key = {(row.row, row.target): row for row in rows}
    for row in dict.fromkeys(row.row for row in rows):
        present = [name for name in names if (row, name) in by_key]
        for name in present[1:]:
            for metric in METRICS:
                values = _round_ratios(by_key[row, present[0]], by_key[row, name], metric)
                if values:
                    found.append(
                        PeerRatio(
                            row=row,
                            peer=name,
                            baseline=present[0],
                            metric=metric,
                            ratio=ratio_of_rounds(values),
                            num_rounds=len(values),
                        )
                    )
    return found


def _round_ratios(base: ScenarioResult, other: ScenarioResult, metric: str) -> list[float]:
    values = []
    for one, two in zip(base.repetitions, other.repetitions, strict=False):
        first, second = getattr(one.measured, metric), getattr(two.measured, metric)
        if first and second and not (one.measured.failed or two.measured.failed):
            values.append(second / first)
    return values


def ratio_of_rounds(values: Sequence[float]) -> Interval:
    """Geometric mean; exp of Student's interval of the mean logarithm. No bounds for a single round."""
    logs = [math.log(value) for value in values]
    mean = math.exp(sum(logs) / len(logs))
    if len(logs) < 2:
        return Interval(mean, None, None)
    if max(logs) == min(logs):
        return Interval(mean, mean, mean)
    try:
        from scipy import stats
    except ImportError:
        return Interval(mean, None, None)
    bounds = stats.ttest_1samp(logs, 0.0).confidence_interval(0.95)
    return Interval(mean, math.exp(float(bounds.low)), math.exp(float(bounds.high)))
