"""Kernel benchmarks on a CPU: timing in turns, machine limits, fractions and goals, roofline plot, tuning search."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import torch

from octavo.kernels.gpu import tuning
from octavo.kernels.gpu.lab import benchmark as benchmarking
from octavo.kernels.gpu.lab import roofline, timing, tune
from octavo.kernels.gpu.lab.benchmark import run_benchmark, run_operation, timed_backends
from octavo.kernels.gpu.lab.limits import Limits, measure_limits
from octavo.kernels.gpu.tuning import Config
from octavo.kernels.operation import Benchmark, Goal, runs_on
from octavo.kernels.registry import NAMES, operation

CPU = torch.device("cpu")
LIMITS = Limits("cpu", copy=1e10, fp32=1e11, bf16=1e11, fp8=1e11, int8=1e11)


def test_calls_take_turns_and_one_that_fails_is_named():
    seen: list[str] = []

    def fail():
        raise ValueError("no such\ndevice")

    calls = {"a": lambda: seen.append("a"), "fails": fail, "b": lambda: seen.append("b")}
    timed = timing.measure(calls, CPU, budget_s=0.0)
    assert timed.times.keys() == {"a", "b"} and timed.errors == {"fails": "ValueError: no such device"}
    assert seen[-2 * timing.MIN_ROUNDS :] == ["a", "b"] * timing.MIN_ROUNDS
    assert all(
        one.low_s <= one.median_s <= one.high_s and one.rounds == timing.MIN_ROUNDS for one in timed.times.values()
    )


def test_the_limits_of_this_machine():
    limits = measure_limits(CPU, size=64, copy_bytes=1 << 16)
    assert limits.device == "cpu" and limits.copy > 0 and limits.fp32 > 0
    assert not {"fp32", "copy"} & limits.errors.keys()


def test_the_floor_is_the_longer_of_bytes_and_operations():
    def floor(limit, moved_bytes, operations):
        return LIMITS.floor_s(Benchmark("", dict, moved_bytes, operations, limit))

    assert floor("copy", 10**10, 10**13) == 1.0  # what a copy-bound operation computes is free
    assert floor("bf16", 10**10, 10**12) == 10.0
    assert floor("bf16", 10**11, 10**11) == 10.0
    assert Limits("cpu").floor_s(Benchmark("", dict, 1, 1)) == 0.0


@pytest.mark.parametrize("name", NAMES)
def test_every_operation_can_be_timed(name):
    """The dry run of its benchmark: what serves here has a fraction of the limit. A baseline may be for its own shapes only."""
    for row in run_operation(name, LIMITS, CPU, tiny=True):
        assert not row.errors.keys() & {*operation(name).backends, "arguments", "torch eager"}, row.errors
        assert row.backends[row.serves].fraction > 0
        json.dumps(row.to_dict())


def test_goals_compare_with_baselines_and_with_the_machine():
    def make(generator, device):
        return {"x": torch.ones(64, 64), "weight": torch.ones(64), "eps": 1e-6}

    def slow(x, weight, eps):
        for _ in range(200):
            x = x * weight
        return x

    goals = (Goal("slow", 1.0), Goal("copy", 1e9), Goal("not measured", 1.0))
    shape = Benchmark("x", make, 1 << 14, 0, "copy", {"slow": slow, "broken": lambda **_: 1 // 0}, goals)
    row = run_benchmark("rms_norm", shape, LIMITS, CPU)
    assert row.errors.keys() == {"broken"}
    by_name = {goal.baseline: goal for goal in row.goals}
    assert by_name["slow"].reached > 1 and by_name["copy"].reached < 1e9 and by_name["not measured"].reached is None


def test_a_shape_for_a_gpu_is_not_tried_on_a_cpu():
    def make(generator, device):
        raise AssertionError("was made")

    row = run_benchmark("rms_norm", Benchmark("huge", make, 1 << 40), LIMITS, CPU)
    assert row.backends == {} and "too large" in row.errors["skipped"]


@pytest.mark.parametrize("name", NAMES)
def test_who_is_timed_where(name):
    op = operation(name)
    assert timed_backends(op, torch.device("cuda"))[0] == op.by_device["cuda"]
    for device in ("cpu", "cuda"):
        assert all(device in runs_on(backend) for backend in timed_backends(op, torch.device(device)))
        assert device in runs_on(op.by_device[device])


def test_the_figure_is_drawn(tmp_path):
    rows = list(run_operation("rms_norm", LIMITS, CPU, tiny=True))
    roofline.draw(rows, LIMITS, tmp_path / "roofline.svg", "dry run")
    assert "dry run" in (tmp_path / "roofline.svg").read_text()


DEFAULT, WIDE, OTHER = Config.of(BLOCK=64), Config.of(BLOCK=128), Config.of(ROWS=1)


def test_a_trial_replaces_the_choice_of_the_kernel_that_it_fits():
    with tuning.trial("op", WIDE) as asked:
        assert tuning.choose("op", "wide", DEFAULT) == WIDE
        assert tuning.choose("op", "combine", OTHER) == OTHER
        assert tuning.choose("another", "wide", DEFAULT) == DEFAULT
    assert asked == [("wide", DEFAULT), ("combine", OTHER)]
    assert tuning.choose("op", "wide", DEFAULT) == DEFAULT


def test_what_is_faster_than_the_default_is_kept(tmp_path, monkeypatch):
    """A back end whose speed its configuration decides; another GPU's entries stay."""
    monkeypatch.setenv("OCTAVO_CACHE", str(tmp_path))

    def backend(x):
        config = tuning.choose("op", "rows", DEFAULT)
        for _ in range(40 if config == DEFAULT else 400 if config.num_warps == 8 else 1):
            x = x + 1
        return x

    module = SimpleNamespace(configs=lambda x: [DEFAULT, WIDE, Config.of(8, BLOCK=128)])
    op = SimpleNamespace(name="op", by_device={"cpu": "fast"}, backends={"fast": "m:f"}, backend=lambda name: backend)
    shape = Benchmark("shape", lambda generator, device: {"x": torch.ones(1 << 14)})
    monkeypatch.setattr(tune, "operation", lambda name: op)
    monkeypatch.setattr(tune, "import_module", lambda name: module)
    monkeypatch.setattr(tune, "benchmarks_of", lambda name: (shape, shape))
    (found,) = tune.tune("op", CPU)
    assert (found.key, found.config, found.num_candidates) == ("rows", WIDE, 3) and found.speedup > 1
    file = tuning.user_file("op")
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps({"another GPU": {"rows": tuning.write(OTHER)}, "cpu": {"columns": tuning.write(OTHER)}}))
    assert tune.save("op", [found], CPU) == file
    saved = json.loads(file.read_text())
    assert saved["another GPU"].keys() == {"rows"}
    assert {key: tuning.read(one) for key, one in saved["cpu"].items()} == {"rows": WIDE, "columns": OTHER}


def test_dispatch_is_measured_in_its_parts():
    found = benchmarking.overhead("rms_norm", CPU)
    assert found.keys() == {"operation", "back end", "check"} and min(found.values()) > 0
