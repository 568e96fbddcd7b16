"""The virtual world: the same engine, another clock. And what it says of ten situations that real servers got wrong."""

from __future__ import annotations

import itertools
import json
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from msgspec.structs import replace as replace_struct

from octavo.bench.traces import read_trace
from octavo.cli.main import run
from octavo.errors import ConfigError, ContextLengthError, InvalidRequestError
from octavo.scheduler.classes import BUILT_IN, ServiceClasses, parse_classes
from octavo.scheduler.policies import POLICIES
from octavo.scheduler.step_time import StepLoad
from octavo.simulator import scenarios
from octavo.simulator.accounting import FairnessMeter, quantile
from octavo.simulator.compare import compare
from octavo.simulator.machine import MACHINES, Machine, find_machine
from octavo.simulator.replay import Replay, Setup, replay
from octavo.simulator.scenarios import Scenario
from octavo.simulator.sweep import knee
from octavo.simulator.traffic import Arrival, Mix, arrivals_of, at_rate
from octavo.types import Plan, PlannedRequest, Request, SamplingParams

MACHINE = find_machine("h200-8b")
Simulate = Callable[[str, Sequence[Arrival], Setup], Replay]


def poisson(
    count: int, per_second: float, num_prompt: int = 1000, num_output: int = 60, seed: int = 0
) -> list[Arrival]:
    rng, now, found = random.Random(seed), 0.0, []
    for i in range(count):
        now += rng.expovariate(per_second)
        level = i % 3
        found.append(
            Arrival(f"r{i}", now, num_prompt, num_output, 1000, BUILT_IN[level].name, f"t{i % 2}", priority=level)
        )
    return found


def test_the_same_seed_gives_the_same_replay() -> None:
    arrivals = poisson(60, 20.0)

    def told(seed: int) -> list[object]:
        return [one.timings for one in replay("slo", arrivals, Setup(MACHINE, seed=seed)).ended]

    assert told(1) == told(1)
    assert told(1) != told(2)


@pytest.mark.parametrize("max_in_flight", [1, 2])
@pytest.mark.parametrize("policy", list(POLICIES))
def test_every_arrival_ends_once_with_its_own_length(policy: str, max_in_flight: int) -> None:
    arrivals = poisson(80, 60.0, num_prompt=2000)
    done = replay(policy, arrivals, Setup(MACHINE, max_num_running=16, max_in_flight=max_in_flight))
    assert sorted(one.arrival.request_id for one in done.ended) == sorted(one.request_id for one in arrivals)
    assert done.output_tokens_per_s == pytest.approx(80 * 60 / done.virtual_s)
    assert done.forecast_error < 0.2


def test_machines_get_slower_with_work() -> None:
    for machine in MACHINES.values():
        empty = machine.seconds(StepLoad(0, 1))
        assert empty == pytest.approx(machine.overhead_s + machine.weights_s, rel=0.01)
        for more in (StepLoad(500, 1), StepLoad(0, 300), StepLoad(0, 1, 10**6), StepLoad(0, 1, 0, 1e8)):
            assert machine.seconds(more) > empty


def request(name: str, tenant: str) -> Request:
    return Request(name, [1] * 10, 10, SamplingParams(), 5, frozenset(), 0.0, tenant=tenant)


def test_the_gap_counts_only_while_both_wait() -> None:
    meter = FairnessMeter()
    meter.came("a", "x")
    meter.stepped(Plan(1, (PlannedRequest("a", 0, 10, True),)), 1.0)
    assert (meter.gap, meter.jain) == (0.0, 1.0), "nobody else waited"
    for i in range(3):
        meter.came(f"a{i}", "x")
        meter.came(f"b{i}", "y")
    meter.stepped(Plan(2, (PlannedRequest("a0", 0, 10, True),)), 1.0)
    assert meter.gap == 12.0
    meter.stepped(Plan(3, (PlannedRequest("b0", 0, 10, True),)), 1.0)
    assert meter.gap == 12.0
    assert meter.jain == 1.0


def test_quantiles_are_values_that_occurred() -> None:
    assert quantile([], 0.5) is None
    assert quantile([3.0, 1.0, 2.0], 0.5) == 2.0
    assert quantile(list(range(100)), 0.99) == 98


def test_a_trace_is_repeated_and_rescaled() -> None:
    class Row:
        hash_ids = ()

        def __init__(self, arrival_s: float, num_prompt_tokens: int) -> None:
            self.arrival_s, self.num_prompt_tokens, self.num_output_tokens = arrival_s, num_prompt_tokens, 7

    rows = [Row(0.0, 10), Row(1.0, 20), Row(3.0, 10_000)]
    arrivals = arrivals_of(rows, 7, ServiceClasses(), Mix((1.0, 0.0, 0.0), longest=1000))
    assert [one.num_prompt_tokens for one in arrivals] == [10, 20, 10, 20, 10, 20, 10]
    assert {one.service_class for one in arrivals} == {"interactive"}
    assert all(a.arrival_s <= b.arrival_s for a, b in itertools.pairwise(arrivals))
    assert 7 / at_rate(arrivals, 5.0)[-1].arrival_s == pytest.approx(5.0)


# -- ten situations from real reports ----------------------------------------------------------------------------------


def of(done: Replay, *names: str) -> dict[str, float]:
    """Time to first token by request id."""
    return {one.arrival.request_id: one.timings.ttft_s or 0.0 for one in done.ended if one.arrival.request_id in names}


def late(done: Replay, name: str) -> int:
    return sum(not one.slo_attained for one in done.ended if one.service_class.name == name)


@pytest.fixture(params=[1, 2], ids=lambda steps: f"{steps}-in-flight")
def simulate(request: pytest.FixtureRequest) -> Simulate:
    """``replay``, with one step in flight and with two: the verdicts are the same."""
    return lambda policy, arrivals, setup: replay(policy, arrivals, replace(setup, max_in_flight=request.param))


def measured(simulate: Simulate, case: Scenario, policy: str) -> float:
    return case.measure(simulate(policy, case.arrivals, case.setup))


def test_1_an_urgent_waiter_against_full_slots(simulate: Simulate) -> None:
    case = scenarios.urgent_against_full_slots()
    assert measured(simulate, case, "fcfs") > 5.0
    assert measured(simulate, case, "priority") < 0.5
    assert measured(simulate, case, "slo") < 0.5


def test_2_a_preempted_request_keeps_its_seniority(simulate: Simulate) -> None:
    case = scenarios.preempted_among_later_ones()
    alone = [replace(one, tenant="only") for one in case.arrivals]
    for policy in ("fcfs", "slo"):
        done = simulate(policy, alone, case.setup)
        assert done.num_preemptions > 0
        assert case.measure(done) == 0
    assert measured(simulate, case, "slo") <= 6  # two tenants: the one that is behind goes first


def test_2_what_has_a_promise_is_overtaken_only_for_the_sake_of_promises(simulate: Simulate) -> None:
    """Of 30 requests with a promise slo keeps more than twice as many as fcfs: those that it gives up wait, preempted or not."""
    case = scenarios.preempted_among_later_ones()
    arrivals = [replace(one, service_class="standard") for one in case.arrivals]
    done = {policy: simulate(policy, arrivals, case.setup).ended for policy in ("fcfs", "slo")}
    kept = {policy: sum(one.slo_attained for one in ended) for policy, ended in done.items()}
    assert kept["slo"] >= 2 * kept["fcfs"]
    end_s = {one.arrival.request_id: one.arrival.arrival_s + (one.timings.e2e_s or 0.0) for one in done["slo"]}
    for late in (one for one in done["slo"] if one.timings.num_preemptions and not one.slo_attained):
        for other in done["slo"]:
            overtakes = other.arrival.arrival_s > late.arrival.arrival_s
            overtakes = overtakes and end_s[other.arrival.request_id] < end_s[late.arrival.request_id] - 1e-9
            assert other.slo_attained or not overtakes


def test_3_cache_friendly_traffic_against_a_request_with_no_shared_prefix(simulate: Simulate) -> None:
    case = scenarios.stranger_among_cache_hits()
    assert measured(simulate, case, "dlpm") < 2.0
    assert measured(simulate, case, "slo") < 2.0


def test_4_a_short_request_behind_a_600k_prefill(simulate: Simulate) -> None:
    case = scenarios.short_behind_huge_prefill()
    assert measured(simulate, case, "fcfs") > 10.0
    assert measured(simulate, case, "slo") < 0.5


def test_5_a_long_prefill_leaves_decodes_their_rate(simulate: Simulate) -> None:
    case = scenarios.decodes_beside_long_prefill()
    assert measured(simulate, case, "fcfs") > 0.05
    assert measured(simulate, case, "slo") <= 0.05


def test_6_one_greedy_tenant_against_nine_polite_ones(simulate: Simulate) -> None:
    case = scenarios.greedy_among_polite()
    assert measured(simulate, case, "fcfs") > 40
    assert measured(simulate, case, "vtc") <= 5
    assert measured(simulate, case, "slo") <= 5


def test_7_goodput_stays_flat_in_overload(simulate: Simulate) -> None:
    def goodput(policy: str, factor: float) -> float:
        case = scenarios.overload(factor)
        return simulate(policy, case.arrivals, case.setup).goodput_rps

    knee = goodput("slo", 1.0)
    assert goodput("slo", 1.5) > 0.95 * knee
    assert goodput("slo", 3.0) > 0.95 * knee


def test_8_a_burst_of_632_requests_in_a_minute_after_silence(simulate: Simulate) -> None:
    case = scenarios.burst_after_silence(list(read_trace("azure-code")))
    assert len(case.arrivals) == 632
    assert 3 * measured(simulate, case, "slo") < 2 * measured(simulate, case, "fcfs")


def test_promises_too_tight_for_the_machine_do_not_stop_prefill(simulate: Simulate) -> None:
    """Found on a busy laptop: steps took longer than the promised time per token, so prefill went at 16 tokens a step."""
    slow = Machine(0.03, 0.15, 2e-3, 1e-6, 0.0, 50_000, "a busy laptop")
    arrivals = poisson(40, 1.2, num_prompt=150, num_output=25)
    tight = tuple(replace_struct(one, tpot_s=one.tpot_s and 0.25) for one in BUILT_IN)
    setup = Setup(slow, ServiceClasses(tight), max_num_running=32, max_step_tokens=512)
    spent = {policy: simulate(policy, arrivals, setup).virtual_s for policy in ("fcfs", "slo")}
    assert spent["slo"] < 1.3 * spent["fcfs"]


def test_9_a_never_fitting_request_is_refused_and_holds_nobody_up(simulate: Simulate) -> None:
    case = scenarios.never_fitting_in_the_middle()
    done = simulate("slo", case.arrivals, case.setup)
    ((refused, error),) = done.refused
    assert refused.request_id == "never" and isinstance(error, ContextLengthError)
    assert sorted(one.arrival.request_id for one in done.ended) == ["before", "behind"]
    assert case.measure(done) < 0.05


def test_10_clients_that_lie_about_length_or_priority_gain_nothing(simulate: Simulate) -> None:
    case = scenarios.liars_among_honest()
    assert measured(simulate, case, "slo") == pytest.approx(1.0, abs=0.15)
    assert measured(simulate, case, "priority") > 2.0


# -- the command -------------------------------------------------------------------------------------------------------


def test_a_page_that_cannot_be_written_is_one_line_and_exit_code_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "missing"
    line = f"schedule compare --trace azure-code --policies fcfs --num-requests 3 --html {folder}/page.html"
    assert run(line.split()) == 1
    assert f"error: {folder}/page.html: No such file or directory" in capsys.readouterr().err


def test_compare_writes_what_it_promises(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    json_path, html_path = tmp_path / "out.json", tmp_path / "report.html"
    line = "schedule compare --trace azure-code --policies fcfs,slo --num-requests 60"
    assert run([*line.split(), "--json", str(json_path), "--html", str(html_path)]) == 0
    report = json.loads(json_path.read_text())
    for name in ("fcfs", "slo"):
        figures = report["policies"][name]
        assert {"output_tokens_per_s", "goodput_rps", "max_wait_exceeded", "fairness_gap_tokens", "jain"} <= set(
            figures
        )
        for one in ("interactive", "standard", "batch"):
            wanted = {"ttft_p50_s", "ttft_p99_s", "tpot_p99_s", "violations", "requests"}
            assert wanted <= set(figures["classes"][one])
        assert sum(one["requests"] for one in figures["classes"].values()) == 60
    page = html_path.read_text()
    assert page.count("<svg") == 4
    assert not re.search(r'(src|href)="https?:', page)
    assert "goodput" in capsys.readouterr().out


def test_a_sweep_finds_the_knee_and_what_nobody_can_beat(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    json_path, html_path = tmp_path / "out.json", tmp_path / "report.html"
    line = (
        "schedule compare --trace azure-code --policies fcfs,slo --num-requests 60 --loads 0.1,1,4 --seeds 2 --keep 0.9"
    )
    assert run([*line.split(), "--json", str(json_path), "--html", str(html_path)]) == 0
    report = json.loads(json_path.read_text())
    assert report["loads"] == [0.1, 1.0, 4.0]
    for found in report["policies"].values():
        assert all(one <= most for one, most in zip(found["attainment"], report["max_attainment"], strict=True))
    assert report["policies"]["slo"]["knee_load"] >= report["policies"]["fcfs"]["knee_load"]
    assert html_path.read_text().count("<svg") == 1
    assert "knee" in capsys.readouterr().out


def test_the_knee_lies_where_the_share_falls_below() -> None:
    assert knee([1.0, 2.0, 3.0], [1.0, 0.9, 0.8], 0.95) == pytest.approx(1.5)
    assert knee([1.0, 2.0, 3.0], [1.0, 0.9, 1.0], 0.95) == pytest.approx(1.5), "what recovers later does not count"
    assert knee([1.0, 2.0], [0.9, 0.8], 0.95) == 0.0
    assert knee([1.0, 2.0], [1.0, 0.99], 0.95) == 2.0


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ("--loads 1,x", "expected numbers above zero"),
        ("--loads 0,1", "expected numbers above zero"),
        ("--policies fcfs,lottery", "unknown policy 'lottery'"),
        ("--policies ,", "policies is empty"),
        ("--machine abacus", "unknown machine 'abacus'"),
        ("--trace nowhere", "samples in the package"),
        ("--shares 1,2", "expected one, zero or more, for each"),
        ("--shares 1,2,x", "expected numbers"),
        ("--lengths magic", "unknown lengths 'magic'"),
        ("--classes /nowhere/c.toml", "/nowhere/c.toml"),
    ],
)
def test_bad_flags_are_one_clear_error(flags: str, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["schedule", "compare", "--num-requests", "5", *flags.split()]) == 2
    assert words in capsys.readouterr().err


def test_a_trace_line_out_of_order_is_one_clear_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "t.csv"
    path.write_text("arrival_s,input_length,output_length\n0,10,5\n5,10,5\n3,10,5\n")
    assert run(["schedule", "compare", "--trace", str(path)]) == 1
    assert "t.csv:4: out of order" in capsys.readouterr().err


CLASSES = """
default = "chat"
[[class]]
name = "chat"
ttft = "400ms"
tpot = "40ms"
max_wait = "10s"
weight = 2
when_full = "refuse"
[[class]]
name = "bulk"
max_wait = "60s"
"""


def test_classes_from_toml() -> None:
    classes = parse_classes(CLASSES, "c.toml")
    chat, bulk = classes.all
    assert (chat.ttft_s, chat.tpot_s, chat.max_wait_s, chat.weight, chat.when_full) == (0.4, 0.04, 10.0, 2.0, "refuse")
    assert (bulk.ttft_s, bulk.max_wait_s, bulk.when_full) == (None, 60.0, "admit")
    assert classes.find("") is chat
    with pytest.raises(InvalidRequestError, match="unknown service_class 'chatt'; did you mean 'chat'"):
        classes.find("chatt")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('"400ms"', '"400"', "has no unit"),
        ('"400ms"', '"-1s"', "above zero"),
        ("weight = 2", "weight = -1", "weight = -1: expected a number above zero"),
        ('max_wait = "10s"', 'max_wait = "100ms"', "max_wait = 0.1 s is below ttft = 0.4 s"),
        ('name = "bulk"', 'name = "chat"', "given twice"),
        ('default = "chat"', 'default = "chit"', "unknown service_class 'chit'"),
        ("ttft =", "tftt =", "unknown setting 'tftt'; did you mean 'ttft'"),
        ("[[class]]", "[class]", "no \\[\\[class\\]\\]|not TOML"),
        ('when_full = "refuse"', 'when_full = "pray"', "expected one of admit, refuse, degrade"),
    ],
)
def test_contradictory_classes_are_one_clear_error(old: str, new: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        parse_classes(CLASSES.replace(old, new), "c.toml")


def test_a_promise_shorter_than_a_step_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "c.toml"
    path.write_text(CLASSES.replace("400ms", "1ms"))
    assert run(["schedule", "compare", "--classes", str(path), "--num-requests", "5"]) == 2
    assert "ttft = 1 ms, but one step takes at least 5" in capsys.readouterr().err


def test_unknown_policies_are_refused_before_anything_runs() -> None:
    with pytest.raises(ConfigError, match="unknown policy"):
        compare(["fcfs", "nope"], poisson(5, 1.0), Setup(MACHINE))
