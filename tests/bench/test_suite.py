"""The engine suite: its arithmetic against numbers worked out by hand, its run against targets whose answers are known."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from rich.console import Console

from octavo.bench.calibration import Calibration, faster
from octavo.bench.limits import ModelFacts, as_served, limit_of, work_of
from octavo.bench.scenario_metrics import Spread, measure
from octavo.bench.scenarios import SUITES, Scenario, choose_scenarios, find_suite
from octavo.bench.suite import PlanResponses, SuiteOptions, SuiteResult, SuiteRun, plan_of, ratios
from octavo.bench.suite_table import limits_lines, machine_line, model_line, number, suite_grid, suite_markdown
from octavo.bench.throughput import Figure
from octavo.bench.types import BenchRequest, LoadPlan, Outcome, RequestRecord
from octavo.config import EngineConfig
from octavo.errors import BenchError, ConfigError
from support.executor_tiny import write_tiny_llama

FACTS = ModelFacts(
    name="by-hand",
    num_parameters=1100,
    layer_parameters=1000,
    head_parameters=100,
    weight_bytes=4400,
    kv_bytes_per_token=20,
    num_layers=2,
    num_heads=1,
    head_dim=5,
    vocab_size=1000,
)
BURST = Scenario("burst", "synthetic:prompt=6,output=4", users=3, num_requests=3)


def figure(best: float) -> Figure:
    return Figure(best, best, best, 1)


def machine(memory: float = 1e-6, f32: float = 1e-6, **others: Figure | None) -> Calibration:
    """1000 bytes and 1000 operations a second, unless told otherwise."""
    values = {"bf16_gflops": None, "int8_gflops": None, **others}
    return Calibration(
        created="", num_threads=1, memory_gb_per_s=figure(memory), f32_gflops=figure(f32), took_s=0.0, **values
    )


def plan(prompts: list[list[int]], output: int, users: int) -> LoadPlan:
    requests = [BenchRequest(index=i, token_ids=ids, max_tokens=output) for i, ids in enumerate(prompts)]
    return LoadPlan(
        workload="w", arrivals="a", seed=0, requests=requests, send_s=[None] * len(prompts), concurrency=users
    )


def test_one_stream_by_hand() -> None:
    """Prompt of 3, output of 3. Attention: 4 * 1 * 5 = 20 operations a token seen, in each of 2 layers: 40."""
    work = work_of(plan([[7, 8, 9]], 3, 1), FACTS)
    assert work.prefill_operations == 3 * 2000 + 200 + (1 + 2 + 3) * 40
    assert work.decode_operations == 2 * 2200 + (4 + 5) * 40
    assert work.decode_steps == 2
    assert work.prefill_bytes == 4400
    assert work.decode_bytes == 2 * 4400 + (4 + 5) * 20
    limit = limit_of(work, FACTS, machine())
    assert limit is not None
    # prefill: 6.44 s of arithmetic against 4.4 s of memory; decode: 8.98 s of memory against 4.76 s of arithmetic
    assert limit.output_tokens_per_s == pytest.approx(3 / (6.44 + 8.98))
    assert limit.decode_tokens_per_s == pytest.approx(2 / 8.98)
    assert limit.ttft_s == pytest.approx(6.44)
    assert limit.bound_by == "memory"  # 13.38 s against 11.2 s
    assert "0.1946 tokens/s" in limit.formula and "GB/s" in limit.formula


def test_a_burst_shares_its_weights_and_overlaps_its_phases() -> None:
    work = work_of(plan([[1, 2], [3, 4], [5, 6]], 3, 3), FACTS)
    assert work.decode_steps == 2
    assert work.prefill_bytes == 4400
    assert work.decode_bytes == 2 * 4400 + 3 * (3 + 4) * 20
    operations = 3 * (2 * 2000 + 200 + (1 + 2) * 40) + 3 * (2 * 2200 + (3 + 4) * 40)
    assert work.prefill_operations + work.decode_operations == operations
    limit = limit_of(work, FACTS, machine())
    assert limit is not None
    assert limit.output_tokens_per_s == pytest.approx(9 / (operations / 1000))
    assert limit.bound_by == "arithmetic"


def test_a_shared_prefix_is_computed_once() -> None:
    work = work_of(plan([[1, 2, 3, 4], [1, 2, 3, 5]], 1, 2), FACTS)
    whole, rest = 4 * 2000 + 200 + 10 * 40, 2000 + 200 + 4 * 40
    assert work.prefill_operations == whole + rest
    assert work.decode_steps == 0 and work.decode_operations == 0
    again = work_of(plan([[1, 2], [1, 2]], 1, 2), FACTS)  # of an equal prompt the last token is computed all the same
    assert again.prefill_operations == 2 * 2000 + 200 + 3 * 40 + 2000 + 200 + 2 * 40


def test_users_that_take_turns_need_more_steps() -> None:
    assert work_of(plan([[i] for i in range(6)], 5, 2), FACTS).decode_steps == 12
    assert work_of(plan([[i] for i in range(6)], 5, 6), FACTS).decode_steps == 4


def test_windows_bound_what_a_token_sees() -> None:
    windowed = msgspec.structs.replace(FACTS, windows=(2, 0))
    work = work_of(plan([[7, 8, 9]], 3, 1), windowed)
    assert work.prefill_operations == 3 * 2000 + 200 + 20 * ((1 + 2 + 2) + (1 + 2 + 3))
    assert work.decode_bytes == 2 * 4400 + 10 * ((2 + 2) + (4 + 5))


def test_no_limit_without_the_rate_and_none_of_text() -> None:
    work = work_of(plan([[1]], 2, 1), FACTS)
    assert limit_of(work, msgspec.structs.replace(FACTS, arithmetic="float8"), machine()) is None
    bf16 = limit_of(work, msgspec.structs.replace(FACTS, arithmetic="bfloat16"), machine(bf16_gflops=figure(1.0)))
    assert bf16 is not None and bf16.bound_by == "memory"
    text = LoadPlan(
        workload="w", arrivals="a", seed=0, requests=[BenchRequest(index=0, text="a")], send_s=[None], concurrency=1
    )
    with pytest.raises(ConfigError, match="not token ids"):
        work_of(text, FACTS)


def test_a_slow_library_is_no_limit() -> None:
    """Eight-bit numbers can be multiplied in float32: where that is faster it is the limit, and the formula says so."""
    work = work_of(plan([[7, 8, 9]], 3, 1), FACTS)
    eight = msgspec.structs.replace(FACTS, arithmetic="int8")
    slow = limit_of(work, eight, machine(memory=1.0, int8_gflops=figure(1e-7)))
    plain = limit_of(work, FACTS, machine(memory=1.0))
    assert slow is not None and plain is not None
    assert slow.output_tokens_per_s == plain.output_tokens_per_s
    assert slow.formula == plain.formula + ", by the rate of float32: int8 itself reaches 1e-07 here"
    fast = limit_of(work, eight, machine(memory=1.0, int8_gflops=figure(4e-6)))
    assert fast is not None and "by the rate" not in fast.formula
    assert fast.output_tokens_per_s == pytest.approx(4 * plain.output_tokens_per_s)
    line = machine_line([machine(int8_gflops=figure(1e-7)), machine(int8_gflops=figure(4e-6)), machine()])
    assert "faster" not in line
    line = machine_line([machine(int8_gflops=figure(1e-7))] * 2)
    assert line.endswith("float32 is faster here than int8, whose limit is taken from it")


def test_weights_count_as_they_are_stored() -> None:
    """Of 1300 parameters, 200 are an embedding that no step reads as a whole."""
    untied = msgspec.structs.replace(FACTS, num_parameters=1300)
    served = as_served(untied, 1300, "the engine")
    assert (served.weight_bytes, served.weights_by) == (1100, "the engine")
    assert as_served(untied, 0, "the server") is untied
    assert work_of(plan([[1]], 3, 1), served).decode_bytes == 2 * 1100 + (2 + 3) * 20
    assert "0.0 MB of weights read by a step (by the engine)" in model_line(served)
    assert "no limits" in model_line(None)


def test_the_better_of_two_calibrations() -> None:
    both = faster(machine(memory=2.0, f32=1.0, int8_gflops=figure(5.0)), machine(memory=1.0, f32=3.0))
    assert both.memory_gb_per_s.best == 2.0 and both.f32_gflops.best == 3.0
    assert both.int8_gflops == figure(5.0) and both.bf16_gflops is None
    assert both.fastest("int8") == ("int8", figure(5.0)) and both.fastest("float8") is None
    assert both.fastest("float16") == both.fastest("bfloat16") == ("float32", figure(3.0))
    assert both.bandwidth == 2e9


def record(index: int, first_s: float, step_s: float, count: int, **fields: object) -> RequestRecord:
    times = [first_s + step_s * k for k in range(count)]
    known = {
        "index": index,
        "intended_s": 0.0,
        "sent_s": 0.0,
        "first_token_s": first_s,
        "end_s": times[-1],
        "chunk_s": times,
        "chunk_tokens": [1] * count,
        "output_tokens": count,
    }
    return RequestRecord(**{**known, **fields})  # type: ignore[arg-type]


def test_decode_phase_of_a_burst_is_the_time_in_which_all_decode() -> None:
    """Requests start at 1 s and 3 s; both make a token every 0.25 s from there on; the first one ends at 5 s."""
    records = [record(0, 1.0, 0.25, 17), record(1, 3.0, 0.25, 17)]
    found = measure(plan([[1], [2]], 17, 2), records)
    assert found.decode_tokens_per_s == pytest.approx(8.0)
    assert found.output_tokens_per_s == pytest.approx(34 / 7.0)
    assert found.ttft_s == pytest.approx(2.0) and found.tpot_s == pytest.approx(0.25)
    two_a_chunk = [msgspec.structs.replace(one, output_tokens=34) for one in records]
    assert measure(plan([[1], [2]], 34, 2), two_a_chunk).decode_tokens_per_s == pytest.approx(16.0)
    assert measure(plan([[1], [2], [3]], 17, 2), records).decode_tokens_per_s is None  # not a burst
    apart = [record(0, 1.0, 0.1, 5), record(1, 3.0, 0.1, 5)]
    assert measure(plan([[1], [2]], 5, 2), apart).decode_tokens_per_s is None


def test_one_user_and_failures() -> None:
    refused = RequestRecord(index=1, intended_s=0.0, sent_s=0.0, end_s=0.1, outcome=Outcome.FAILED, error="full")
    records = [record(0, 1.0, 0.5, 5), refused, record(2, 1.0, 0.5, 3)]
    found = measure(plan([[1], [2], [3]], 5, 1), records, "late")
    assert (found.ok, found.failed, found.error, found.invalid_reason) == (2, 1, "full", "late")
    assert found.decode_tokens_per_s == pytest.approx(2.0)
    assert found.output_tokens_per_s == pytest.approx(8 / 3.0)
    assert found.ended_early == 1
    nothing = measure(plan([[1]], 5, 1), [refused])
    assert nothing.ok == 0 and nothing.failed == 1 and nothing.output_tokens_per_s is None


def test_every_suite_can_be_planned() -> None:
    for suite in SUITES.values():
        assert len({row.name for row in suite.rows}) == len(suite.rows)
        for row in suite.rows:
            made = plan_of(row, SuiteOptions(max_context=8192), 0)
            assert len(made.requests) == row.num_requests and made.concurrency == row.users
            assert all(one.token_ids and one.extra["temperature"] == 0 for one in made.requests)
            assert work_of(made, FACTS).prefill_operations > 0


def test_repetitions_have_the_same_lengths_and_other_tokens() -> None:
    row = next(row for row in SUITES["cpu"].rows if row.name == "mixed")
    first, second = (plan_of(row, SuiteOptions(max_context=256, vocab_high=512), repeat) for repeat in (0, 1))
    lengths = [[(len(one.token_ids or ()), one.max_tokens) for one in made.requests] for made in (first, second)]
    assert lengths[0] == lengths[1]
    assert max(prompt + output for prompt, output in lengths[0]) <= 256
    pairs = zip(first.requests, second.requests, strict=True)
    assert all(one.token_ids != two.token_ids for one, two in pairs)
    assert max(max(one.token_ids or ()) for one in first.requests) < 512


def test_no_two_rows_share_a_prompt() -> None:
    """A prefix cache would answer the second one of them from the first."""
    options = SuiteOptions(max_context=256, vocab_high=512)
    plans = [plan_of(Scenario(f"row {i}", "synthetic:prompt=32,output=4", 4, 4), options, 0) for i in range(3)]
    starts = [tuple((request.token_ids or [])[:16]) for plan in plans for request in plan.requests]
    assert len(set(starts)) == len(starts)


def test_rows_by_name() -> None:
    suite = find_suite("cpu")
    assert [row.name for row in choose_scenarios(suite, " mixed , single")] == ["mixed", "single"]
    quick = choose_scenarios(suite, quick=True)
    assert 0 < len(quick) < len(choose_scenarios(suite))
    with pytest.raises(ConfigError, match="unknown scenario 'fast'; known: single, prefill-1024"):
        choose_scenarios(suite, "fast")
    with pytest.raises(ConfigError, match="unknown suite 'gpu'; known: cpu"):
        find_suite("gpu")


class Known:
    """PlanResponses every plan with tokens at a known rate; gone after ``lives`` plans."""

    def __init__(self, name: str, order: list[str], step_s: float = 0.25, lives: int = 100) -> None:
        self.name, self._order, self._step_s, self._lives = name, order, step_s, lives

    def run(self, plan: LoadPlan) -> PlanResponses:
        self._order.append(self.name)
        self._lives -= 1
        if self._lives < 0:
            raise BenchError(f"{self.name} is gone")
        return PlanResponses(records=[record(one.index, 1.0, self._step_s, one.max_tokens) for one in plan.requests])


def test_cached_prompts_and_prompts_of_text_are_noted() -> None:
    """A server that knows a prompt already computes less of it; how long a text is, is for the server to say."""

    class Counts(Known):
        def run(self, plan: LoadPlan) -> PlanResponses:
            records = [record(one.index, 1.0, 0.25, one.max_tokens) for one in plan.requests]
            for one in records:
                one.prompt_tokens, one.cached_tokens = 8, 2
            return PlanResponses(records=records)

    run = SuiteRun([Counts("http", [])], SuiteOptions(repetitions=1, form="text"), machine, FACTS)
    run.run([BURST])
    (row,) = run.results()
    assert "prompts of 8 tokens by the server's count" in row.notes
    assert "25% of the prompt tokens came from the server's prefix cache" in row.notes
    exact = SuiteRun([Known("http", [])], SuiteOptions(repetitions=1), machine, FACTS)
    exact.run([BURST])
    assert not any("tokens" in note for note in exact.results()[0].notes)


def test_groups_are_interleaved_and_calibrated() -> None:
    order: list[str] = []

    def calibrate() -> Calibration:
        order.append("calibration")
        return machine(memory=len(order))

    targets = [Known("offline", order), Known("http", order, step_s=0.5)]
    run = SuiteRun(targets, SuiteOptions(repetitions=2, warm_up=False), calibrate, FACTS)
    run.run([BURST])
    assert order == ["calibration", "offline", "http", "calibration", "http", "offline", "calibration"]  # turn about
    rows = {row.target: row for row in run.results()}
    offline, http = rows["offline"], rows["http"]
    assert offline.output_tokens_per_s == Spread(*[12 / 1.75] * 3)
    assert [one.calibration for one in offline.repetitions] == [0, 1]
    ratio = ratios(run.results(), "http", "offline")["burst"]
    assert (ratio.low, ratio.median, ratio.high) == pytest.approx((0.7, 0.7, 0.7))
    work = work_of(plan_of(BURST, SuiteOptions(), 0), FACTS)
    expected = limit_of(work, FACTS, machine(memory=7))
    assert expected is not None and offline.fraction is not None and http.fraction is not None
    assert offline.fraction.median == pytest.approx(12 / 1.75 / expected.output_tokens_per_s)
    assert http.fraction.median < offline.fraction.median
    assert "tokens/s" in offline.formula


def test_a_target_that_dies_is_left_out_and_the_other_goes_on() -> None:
    order: list[str] = []
    said: list[str] = []
    targets = [Known("offline", order), Known("http", order, lives=1)]
    run = SuiteRun(targets, SuiteOptions(repetitions=3, warm_up=False), machine, say=said.append)
    run.run([BURST])
    assert run.dead == {"http": "http is gone"} and "http: http is gone" in said
    assert {row.target: len(row.repetitions) for row in run.results()} == {"offline": 3, "http": 1}
    alone = SuiteRun([Known("http", order, lives=0)], SuiteOptions(), machine)
    with pytest.raises(BenchError, match="nothing was measured: http: http is gone"):
        alone.run([BURST])


def test_tables() -> None:
    run = SuiteRun([Known("offline", []), Known("http", [])], SuiteOptions(repetitions=1), machine, FACTS)
    run.run([BURST])
    rows = run.results()
    result = SuiteResult(
        suite="cpu",
        created="now",
        command="octavo bench suite cpu",
        commit="abc",
        octavo_version="1",
        machine={},
        seed=0,
        model=FACTS,
        rows=rows,
        calibrations=run.calibrations,
        http_over_offline=ratios(rows, "http", "offline"),
        notes=["one note"],
    )
    page = suite_markdown(result)
    lines = [line for line in page.splitlines() if line.startswith("|")]
    assert len(lines) == 4 and len({line.count("|") for line in lines}) == 1
    assert "| burst | http | 6.86 (6.86..6.86) |" in page and "1 (1..1)" in lines[3]
    assert limits_lines(rows)[0] in page and "- one note" in page
    assert msgspec.json.decode(msgspec.json.encode(result), type=SuiteResult).rows == rows
    console = Console(width=200)
    with console.capture() as capture:
        console.print(suite_grid(rows, result.http_over_offline).rich("suite"))
    assert "6.86 (6.86..6.86)" in capture.get()
    assert [number(value) for value in (0, 0.12345, 1.5, 12.34, 1234.5)] == ["0", "0.123", "1.5", "12.3", "1234"]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "stored", "int8", "int4"])
def test_every_dtype_of_the_engine_has_a_limit(dtype: str, tmp_path: Path) -> None:
    """A new dtype once left the suite without facts; those of weights in 8 or 4 bits are held to the int8 rate."""
    from octavo.bench.offline_target import model_facts

    write_tiny_llama(tmp_path)
    facts = model_facts("m", tmp_path, EngineConfig(dtype=dtype, kv_dtype="float32"))
    assert facts is not None and 0 < facts.weight_bytes <= 4 * facts.num_parameters and facts.kv_bytes_per_token > 0
    assert facts.arithmetic == (dtype if dtype.startswith(("float", "bfloat")) else "int8")
    assert limit_of(work_of(plan([[1]], 2, 1), facts), facts, machine(int8_gflops=figure(1.0))) is not None


def test_the_engine_in_this_process_answers_a_plan() -> None:
    from octavo.bench.offline_target import OfflineTarget

    row = Scenario("turns", "synthetic:prompt=20,output=9", users=2, num_requests=5)
    options = SuiteOptions(vocab_high=512)
    with OfflineTarget("fake", None, EngineConfig(executor="fake")) as target:
        made = plan_of(row, options, 0)
        answers = target.run(made)
        too_long = Scenario("long", "synthetic:prompt=9000,output=9", users=1, num_requests=1)
        refused = target.run(plan_of(too_long, options, 0))
    assert [one.index for one in answers.records] == list(range(5))
    for one in answers.records:
        assert one.outcome is Outcome.OK and one.output_tokens == 9 == len(one.chunk_s)
        assert one.ttft_s is not None and one.ttft_s > 0
        assert one.chunk_s == sorted(one.chunk_s) and one.end_s == one.chunk_s[-1]
    ends = sorted(one.end_s or 0.0 for one in answers.records)
    later = sorted(one.intended_s for one in answers.records)[2:]
    assert all(sent >= end for sent, end in zip(later, ends, strict=False))  # a user waits for an answer
    assert measure(made, answers.records).ok == 5
    assert refused.records[0].outcome is Outcome.FAILED and "can never fit" in (refused.records[0].error or "")


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """``octavo bench ...`` with a calibration that costs nothing."""
    import typer

    from octavo.bench import suite_job
    from octavo.cli import bench_peers, bench_suite

    monkeypatch.setattr(suite_job, "calibrate", lambda num_threads, weight_bytes: machine())
    app = typer.Typer()
    bench_suite.register(app)
    bench_peers.register(app)
    return lambda *words: app(args=[str(word) for word in words], standalone_mode=False)


def test_the_command(command: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, page = tmp_path / "new" / "suite.json", tmp_path / "suite.md"
    rows = ("--rows", "single,concurrent-4", "--repetitions", 2)
    command("suite", "--executor", "fake", "--offline", *rows, "--out", out, "--markdown", page)
    result = msgspec.json.decode(out.read_bytes(), type=SuiteResult)
    assert [(row.row, row.target, row.num_failed) for row in result.rows] == [
        ("single", "offline", 0),
        ("concurrent-4", "offline", 0),
    ]
    assert len(result.calibrations) == 5 and result.schema_version == 1
    assert "| concurrent-4 | offline |" in page.read_text()
    assert "concurrent-4" in capsys.readouterr().out


def test_the_commands_refuse_contradictions(command: Callable[..., None]) -> None:
    cases = (
        (("suite", "--offline", "--http"), "--offline does not go with --http"),
        (("suite", "--url", "http://x", "--dtype", "float32"), "the server at http://x has its own"),
        (("suite", "gpu"), "unknown suite"),
        (("peers",), "no server to measure"),
        (("peers", "a=http://x", "--start", "a=b {port}"), "give it another name"),
        (("peers", "a=http://x", "--rows", "fast"), "unknown scenario 'fast'"),
    )
    for words, message in cases:
        with pytest.raises(ConfigError, match=message):
            command(*words)
