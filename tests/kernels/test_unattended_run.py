"""Dry run of ``scripts/gpu``: every file is written, failures are named, a part resumes; adoption of results; compile study."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from octavo.kernels.gpu.lab import compile_study, parts, runner, summary
from octavo.kernels.gpu.lab.options import Options
from octavo.kernels.gpu.lab.parts import Part
from octavo.kernels.gpu.lab.plain_llama import TINY, PlainLlama
from octavo.kernels.gpu.lab.runner import run_child
from octavo.kernels.registry import NAMES

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts" / "gpu"
sys.path.append(str(SCRIPT.parent))
import gpu_models  # noqa: E402


def results(out, part):
    return json.loads((out / f"{part}.json").read_text())["results"]


def test_a_dry_run_writes_every_file_and_says_what_it_is(tmp_path, capsys):
    arguments = [
        "check",
        "bench",
        "steps",
        "sanitizer",
        "tune",
        "--device",
        "cpu",
        "--tiny",
        "--only",
        "rms_norm,matmul",
    ]
    assert runner.main(SCRIPT, gpu_models.PARTS, [*arguments, "--out", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "DRY RUN" in said and "rms_norm" in said
    names = {"check", "bench", "steps", "sanitizer", "tune", "summary"}
    assert {file.stem for file in tmp_path.iterdir()} == names | {"roofline"}
    for name in names:
        assert json.loads((tmp_path / f"{name}.json").read_text())["environment"]["dry_run"] is True
    rows = results(tmp_path, "check")["rms_norm"]["backends"]
    assert rows["torch"]["passed"] == rows["torch"]["cases"] > 0
    assert results(tmp_path, "bench")["matmul"]["rows"][0]["backends"]["torch"]["timing"]["rounds"] >= 5
    assert list(results(tmp_path, "steps")) == ["matmul"]
    with pytest.raises(ValueError, match="is a dry run"):
        summary.adopt(tmp_path, tmp_path)


def test_a_child_returns_its_result_from_its_own_process(tmp_path):
    options = Options(tmp_path, "cpu", tiny=True, only=("softmax",))
    check = next(part for part in parts.PARTS if part.name == "check")
    result = run_child(check, "softmax", options, SCRIPT, 300.0)
    assert result["failures"] == [] and "torch" in result["words"] and result["seconds"] > 0


def test_a_dry_run_interprets_triton_in_a_process_of_its_own(tmp_path):
    """Without what tests/conftest.py switches on: a part that starts softmax's loops, which need the interpreter's repair."""
    program = f"""
from pathlib import Path
from octavo.kernels.gpu.lab import runner
from octavo.kernels.gpu.lab.parts import Part

def child(options, task):
    import torch
    from octavo.kernels.softmax.triton import softmax
    x = torch.randn(2, 40000)
    return {{"error": ""}} if torch.allclose(softmax(x), x.softmax(1)) else {{"error": "wrong"}}

options = ["interpreted", "--device", "cpu", "--out", {str(tmp_path)!r}]
runner.main(Path("unused"), [Part("interpreted", lambda options: ["softmax"], child)], options)
"""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert results(tmp_path, "interpreted") == {"softmax": {"error": ""}}, done.stdout


def test_small_products_are_run_in_every_way_that_the_device_knows(tmp_path):
    options = Options(tmp_path, "cpu", tiny=True, only=("fused_gemm",))
    part = next(part for part in parts.PARTS if part.name == "concurrency")
    assert part.tasks(options) == ["fused_gemm"] and part.tasks(replace(options, only=("softmax",))) == []
    found = part.child(options, "fused_gemm")
    assert "error" not in found and [row["way"] for row in found["rows"]] == ["serial", "one launch", "torch.bmm"]
    assert all(row["median_s"] > 0 and row["host_s"] > 0 for row in found["rows"])


def die(options, task):
    raise AssertionError("children are not run here")


@pytest.mark.parametrize(
    ("script", "limit_s", "words"),
    [("import os; os.abort()", 60, "exit code -6"), ("import time; time.sleep(60)", 0.5, "not done within")],
)
def test_a_child_that_crashes_or_hangs_is_an_error_of_its_task(tmp_path, script, limit_s, words):
    file = tmp_path / "script.py"
    file.write_text(script)
    result = run_child(Part("part", lambda options: (), die), "task", Options(tmp_path, "cpu"), file, limit_s)
    assert words in result["error"]


def test_a_part_goes_on_after_a_failure_and_later_where_it_stopped(tmp_path, capsys):
    seen = []

    def child(options, task):
        seen.append(task)
        if task == "b" and len(seen) < 4:
            raise RuntimeError("broken")
        return {"words": "fine"}

    part = Part("mine", lambda options: ("a", "b", "c"), child)
    arguments = ["mine", "--device", "cpu", "--tiny", "--out", str(tmp_path)]
    assert runner.main(SCRIPT, (part,), arguments) == 1
    assert results(tmp_path, "mine")["b"] == {"error": "RuntimeError: broken"}
    assert "FAILED mine b: RuntimeError: broken" in capsys.readouterr().out
    assert runner.main(SCRIPT, (part,), arguments) == 0
    assert seen == ["a", "b", "c", "b"]
    assert runner.main(SCRIPT, (part,), [*arguments, "--fresh", "--minutes", "0.01"]) == 1
    assert "not reached" in results(tmp_path, "mine")["a"]["error"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so(tmp_path, capsys):
    assert runner.main(SCRIPT, (), ["check", "--out", str(tmp_path / "none")]) == 2
    assert "finds no NVIDIA GPU" in capsys.readouterr().err and not (tmp_path / "none").exists()
    with pytest.raises(SystemExit):
        runner.main(SCRIPT, (), ["nonsense", "--device", "cpu"])
    assert "unknown 'nonsense'; known: check, bench" in capsys.readouterr().err


def test_the_verdict_of_a_sanitizer():
    clean = "========= COMPUTE-SANITIZER\n========= ERROR SUMMARY: 0 errors\n"
    assert parts.sanitizer_words(clean) == {"num_errors": 0, "words": "0 errors"}
    race = "========= RACECHECK SUMMARY: 2 hazards displayed (2 errors, 0 warnings)\n"
    assert parts.sanitizer_words(race)["error"] == "2 errors"
    refused = "========= Error: Device not supported\n========= ERROR SUMMARY: 0 errors\n"
    assert "Device not supported" in parts.sanitizer_words(refused)["error"]
    assert "no verdict" in parts.sanitizer_words("")["error"]


def test_real_results_are_adopted_as_data(tmp_path):
    out, kernels = tmp_path / "out", tmp_path / "kernels"
    out.mkdir()
    (kernels / "gpu").mkdir(parents=True)
    (kernels / "matmul").mkdir()
    environment = {"dry_run": False, "gpu": "NVIDIA H200", "date": "2026-11-21", "commit": "abc"}
    found = {"environment": environment, "operations": {}, "optimisation_steps": {}}
    (out / "summary.json").write_text(json.dumps(found))
    config = {"tiles": {"BLOCK": 64}, "num_warps": 4, "num_stages": 3}
    (out / "tune.json").write_text(
        json.dumps({"results": {"matmul": {"tuned": {"wide": config}}, "softmax": {"tuned": {}}}})
    )
    written = summary.adopt(out, kernels)
    assert [str(file.relative_to(kernels)) for file in written] == ["gpu/measured.json", "matmul/tuned.json"]
    assert json.loads(written[1].read_text()) == {"NVIDIA H200": {"wide": config}}


def test_every_task_of_a_real_run_is_known():
    options = Options(Path("out"))
    known = {part.name: part for part in (*parts.PARTS, *gpu_models.PARTS)}
    assert set(known["sanitizer"].tasks(options)) == {f"{tool} {name}" for tool in parts.SANITIZERS for name in NAMES}
    assert "matmul" in known["steps"].tasks(options)
    assert list(known["compile-study"].tasks(options)) == list(compile_study.MODES)
    assert known["compile-study"].tasks(replace(options, device="cpu", tiny=True)) == ()


def test_steps_of_a_transformers_llama_can_be_repeated():
    model = gpu_models.build(Options(Path("out"), "cpu", tiny=True))
    steps = [
        gpu_models.decode_call(model, model, 8, 2, static=False),
        gpu_models.decode_call(model, model, 8, 2, static=True),
        gpu_models.prefill_call(model, model, 8, 2),
    ]
    for step in steps:
        first, second = step().logits, step().logits
        assert first.shape == (2, 1, model.config.vocab_size)
        torch.testing.assert_close(first, second)


def test_a_study_counts_graphs_and_names_their_breaks():
    subject = PlainLlama.subject(TINY, torch.device("cpu"))
    function, arguments = subject.prepare(2)
    with torch.no_grad():
        assert function(*arguments).shape == (2, TINY.vocab)
    assert compile_study.graph_breaks(lambda x: x + 1, (torch.ones(2),)) == (1, ())

    def broken(x):
        x = x + 1
        torch._dynamo.graph_break()
        return x * 2

    graphs, causes = compile_study.graph_breaks(broken, (torch.ones(2),))
    assert graphs == 2 and len(causes) == 1 and "test_unattended_run.py:" in causes[0]


def test_what_compilation_costs_and_when_it_pays():
    from octavo.kernels.gpu.lab.timing import Timing

    eager, compiled = Timing(0.2, 0.2, 0.2, 9), Timing(0.1, 0.1, 0.1, 9)
    one = compile_study.Studied("decode", "default", 1, eager, compiled, compile_s=5.0)
    assert one.speedup == 2 and one.breakeven_calls == 50 and "pays after 50 calls" in compile_study.words(one)
    slower = replace(one, eager=compiled, compiled=eager)
    assert slower.breakeven_calls == float("inf")
    failed = replace(one, compiled=None, problem="out of memory | 80 GB")
    assert failed.speedup == 0 and "out of memory" in compile_study.words(failed)
    broken = replace(slower, breaks=("a print (llama.py:7)",), graphs=2)
    rows = [compile_study.row(result) for result in (one, broken, failed)]
    assert [row["breakeven_calls"] for row in rows] == [50, None, None]
    page = compile_study.page({"machine": "a card"}, json.loads(json.dumps(rows, allow_nan=False))).splitlines()
    table = [line.count(" | ") for line in page if line.startswith("| ")]
    assert len(table) == 4 and len(set(table)) == 1 and "- machine: a card" in page
    assert any("2.00 x | 5.0 | 50 |" in line for line in page) and any("| never |" in line for line in page)
    assert page[-1] == "- a print (llama.py:7): 1 times (decode, default, batch 1 ...)"
