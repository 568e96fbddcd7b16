"""Ctrl-C and SIGTERM to `octavo bench`: what was measured is on disk, and a server that it started is gone."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from octavo.bench.client.journal import read_journal

STUB = f"{sys.executable} -m support.stub_server --port {{port}} --ttft fixed:0.02"
LOAD = ("--workload", "synthetic:prompt=4,output=3", "--duration", "60")
TESTS = str(Path(__file__).parents[1])


@contextmanager
def octavo(*arguments: str, cwd: Path) -> Iterator[subprocess.Popen[str]]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([TESTS, os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, "-m", "octavo.cli.main", "bench", *arguments]
    with subprocess.Popen(
        command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def until(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline_s = time.monotonic() + 60
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline_s, "waited in vain"
        time.sleep(0.05)


def servers_of(process: subprocess.Popen[str]) -> list[psutil.Process]:
    return [one for one in psutil.Process(process.pid).children() if "support.stub_server" in " ".join(one.cmdline())]


def answered(journal: Path) -> bool:
    return journal.exists() and journal.read_bytes().count(b"\n") > 5


def gone(servers: list[psutil.Process]) -> bool:
    _, alive = psutil.wait_procs(servers, timeout=20)
    return not alive


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_leaves_a_result_and_no_server(number: signal.Signals, tmp_path: Path) -> None:
    with octavo("run", "--start", STUB, *LOAD, "--rate", "30", "--rows", "rows.csv", cwd=tmp_path) as process:
        until(lambda: answered(tmp_path / "result.journal.jsonl"), process)
        servers = servers_of(process)
        assert len(servers) == 1
        process.send_signal(number)
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + number, output
    result = json.loads((tmp_path / "result.json").read_text())
    assert not result["valid"] and "stopped by" in result["invalid_reason"]
    assert result["requests"]["ok"] > 3 and result["summary"]["ttft_s"]["p50"]["value"] > 0.019
    assert (tmp_path / "rows.csv").read_text().count("\n") > 3
    assert not list(tmp_path.glob("*.jsonl")), "what is in the result need not stay in the journal"
    assert gone(servers)


def test_a_stopped_sweep_leaves_the_rates_so_far_and_no_server(tmp_path: Path) -> None:
    load = (*LOAD[:2], "--duration", "1", "--rates", "10,20,30", "--slo", "e2e=1s")
    with octavo("sweep", "--start", STUB, *load, cwd=tmp_path) as process:
        until(lambda: answered(tmp_path / "sweep-20.journal.jsonl"), process)
        servers = servers_of(process)
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM, output
    assert json.loads((tmp_path / "sweep-10.json").read_text())["requests"]["ok"] > 3
    assert "stopped by" in json.loads((tmp_path / "sweep-20.json").read_text())["invalid_reason"]
    assert not (tmp_path / "sweep-30.json").exists(), "it went on after it was stopped"
    assert gone(servers) and servers


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_server_that_is_still_starting_is_ended_as_well(number: signal.Signals, tmp_path: Path) -> None:
    slow = f"{sys.executable} -c 'import time; time.sleep(600)' support.stub_server {{port}}"
    with octavo("run", "--start", slow, *LOAD, "--rate", "1", cwd=tmp_path) as process:
        until(lambda: bool(servers_of(process)), process)
        servers = servers_of(process)
        process.send_signal(number)
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert "Traceback" not in output
    assert gone(servers)


def test_a_background_job_of_a_shell_can_be_ended_too(tmp_path: Path) -> None:
    """Such a job ignores SIGINT from birth on."""
    slow = f"{sys.executable} -c 'import time; time.sleep(600)' support.stub_server {{port}}"
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with octavo("run", "--start", slow, *LOAD, "--rate", "1", cwd=tmp_path) as process:
            until(lambda: bool(servers_of(process)), process)
            servers = servers_of(process)
            process.send_signal(signal.SIGTERM)
            output, _ = process.communicate(timeout=60)
    finally:
        signal.signal(signal.SIGINT, before)
    assert process.returncode == 130, output
    assert gone(servers)


def test_an_interrupt_while_a_dataclass_is_made_does_not_change_the_exit_code(tmp_path: Path) -> None:
    """Under ``python -m`` the interpreter would end by SIGINT, although somebody caught it."""
    (tmp_path / "interrupted.py").write_text(
        "from octavo.cli import main\n"
        "def run(arguments):\n"
        "    try:\n"
        "        exec('raise KeyboardInterrupt')\n"
        "    except KeyboardInterrupt:\n"
        "        return 130\n"
        "main.run = run\n"
        "main.main()\n"
    )
    done = subprocess.run([sys.executable, "-m", "interrupted"], cwd=tmp_path, check=False)
    assert done.returncode == 130


def test_a_killed_run_leaves_its_journal(tmp_path: Path) -> None:
    """Nothing can be done after SIGKILL; the server that was started then has to be ended by hand."""
    with octavo("run", "--start", STUB, *LOAD, "--rate", "30", cwd=tmp_path) as process:
        journal = tmp_path / "result.journal.jsonl"
        until(lambda: answered(journal), process)
        servers = servers_of(process)
        process.kill()
        process.wait()
        for one in servers:
            one.kill()
    head, records = read_journal(journal)
    assert head.model == "stub" and len(records) > 3


def test_several_servers_are_measured_in_turn_and_compared(tmp_path: Path) -> None:
    start = ("--start", f"A={STUB}", "--start", f"B={STUB.replace('0.02', '0.04')}")
    load = (*LOAD[:2], "--duration", "1", "--rate", "30", "--repeat", "2", "--out", "both/r.json")
    with octavo("run", *start, *load, cwd=tmp_path) as process:
        output, _ = process.communicate(timeout=100)
    assert process.returncode in (0, 1), output  # 1: a busy machine made a run invalid
    results = {path.stem: json.loads(path.read_text()) for path in (tmp_path / "both").glob("r-*.json")}
    assert sorted(results, key=lambda stem: results[stem]["created"]) == ["r-A-1", "r-B-1", "r-A-2", "r-B-2"]
    assert [results[f"r-A-{i}"]["name"] for i in (1, 2)] == ["A", "A"]
    for i in (1, 2):
        assert results[f"r-A-{i}"]["plan_digest"] == results[f"r-B-{i}"]["plan_digest"]
    assert results["r-A-1"]["plan_digest"] != results["r-A-2"]["plan_digest"], "fresh prompts"
    if all(sum(one["valid"] for one in results.values() if one["name"] == name) for name in "AB"):
        assert re.search(r"against A \(valid runs", output) and "ttft_s.p50" in output
        assert "not interleaved" not in output
