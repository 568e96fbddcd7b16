"""``octavo kernels``: what it lists, checks, times and explains; errors are one line."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import torch

from octavo.cli.main import run
from octavo.kernels.gpu.lab import measured
from octavo.kernels.gpu.lab.benchmark import steps_of
from octavo.kernels.registry import NAMES

no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")


def test_list_knows_every_operation(capsys):
    assert run(["kernels", "list", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in rows] == list(NAMES)
    for row in rows:
        assert row["summary"] and row["serves"].keys() == {"cpu", "cuda"}
        assert set(row["serves"].values()) <= row["backends"].keys()
    assert run(["kernels", "list"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in NAMES)


def test_check_tests_an_operation_against_its_reference(capsys):
    assert run(["kernels", "check", "rms_norm", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["device"] == "cpu" and {one["backend"] for one in said["outcomes"]} == {"torch", "triton"}
    assert all(one["passed"] and one["error"] <= 1 for one in said["outcomes"])


def test_check_as_installed_needs_nothing_of_the_tests(tmp_path):
    """A process of its own: softmax's Triton loops need the interpreter's repair, which the command has to apply itself."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "octavo.cli.main", "kernels", "check", "softmax", "--json"]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr
    assert {one["backend"] for one in json.loads(done.stdout)["outcomes"]} == {"torch", "triton"}


def test_bench_says_that_a_cpu_gives_no_gpu_figures(capsys, tmp_path):
    figure = tmp_path / "roofline.svg"
    assert run(["kernels", "bench", "rms_norm", "--tiny", "--figure", str(figure)]) == 0
    said = capsys.readouterr().out
    assert "no GPU figures" in said and "torch (serves)" in said and "to issue one small call" in said
    assert "dry run" in figure.read_text()
    assert run(["kernels", "bench", "rms_norm", "--tiny", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["limits"]["device"] == "cpu" and said["rows"][0]["backends"]["torch"]["timing"]["rounds"] >= 5


@pytest.mark.parametrize("name", [name for name in NAMES if steps_of(name)])
def test_explain_prints_every_step(capsys, name):
    assert run(["kernels", "explain", name]) == 0
    said = " ".join(capsys.readouterr().out.split())
    for step in steps_of(name):
        assert " ".join(step.change.split()) in said and " ".join(step.prediction.split()) in said
        resources = measured.compiled(name, step)
        assert resources and all("registers a thread" in words and words in said for words in resources)


@no_gpu
@pytest.mark.parametrize("command", [["check", "rms_norm", "--gpu"], ["bench", "--gpu"], ["tune"]])
def test_without_a_gpu_one_line_says_so(capsys, command):
    assert run(["kernels", *command]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: torch") and "finds no NVIDIA GPU" in said and said.count("\n") == 1


@pytest.mark.parametrize("command", ["check", "bench", "explain"])
def test_an_unknown_operation_gets_the_list(capsys, command):
    assert run(["kernels", command, "no_such"]) == 2
    said = capsys.readouterr().err
    assert "unknown operation 'no_such'; known: " in said and "rms_norm" in said and said.count("\n") == 1


def test_an_operation_without_optimisation_steps(capsys):
    assert run(["kernels", "explain", "rms_norm"]) == 2
    assert "rms_norm has no optimisation steps; operations with them: " in capsys.readouterr().err


def test_a_run_is_adopted_beside_those_of_other_gpus(tmp_path):
    file = tmp_path / "measured.json"
    timing = {"median_s": 1e-3, "low_s": 1e-3, "high_s": 1e-3, "rounds": 9}
    reached = {"timing": timing, "bytes_per_s": 1e12, "operations_per_s": 2e12, "fraction": 0.5}
    for gpu in ("A", "B"):
        environment = {"gpu": gpu, "date": "2026-11-21", "commit": "abc"}
        operations = {"matmul": {"cases_passed": 9, "cases": 9, "fraction": 0.5}}
        steps = {"matmul": [{"benchmark": "4096", "backends": {"naive": reached}}]}
        measured.adopt({"environment": environment, "operations": operations, "optimisation_steps": steps}, file)
    assert [one.gpu for one in measured.measured("matmul", file)] == ["A", "B"]
    assert measured.measured("rms_norm", file) == ()
    assert (
        measured.measured_steps("matmul", "naive", file)[0]
        == "A, 4096: 1000 us, 2 TFLOP/s, 1000 GB/s, 50% of the limit"
    )
    assert measured.measured_steps("matmul", "tiles", file) == []
