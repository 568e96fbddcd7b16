"""`octavo bench` as a user runs it, against a real server: run, compare, sweep, schema, and what it says to bad input."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import jsonschema_rs
import pytest

from support.server_process import ServerProcess

WORKLOAD = ("--workload", "synthetic:prompt=12,output=8", "--vocab-size", "500", "--duration", "4")


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with ServerProcess("--executor", "fake", "--fake-step-ms", "2") as server:
        yield server.url


def octavo(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "octavo.cli.main", "bench", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=100, check=False)


def test_run_writes_a_valid_result_and_compare_reads_it(url: str, tmp_path: Path) -> None:
    slo = ("--slo", "ttft=5s,tpot=1s")
    for name in "AB":
        done = octavo(
            "run", "--url", url, *WORKLOAD, "--rate", "15", *slo, "--name", name, "--out", f"{name}.json", "--rows",
            f"{name}.csv",
            cwd=tmp_path,
        )  # fmt: skip
        assert "requests/s met TTFT <= 5000 ms, TPOT <= 1000 ms" in done.stdout, done.stderr
    result = json.loads((tmp_path / "A.json").read_text())
    published = octavo("schema", cwd=tmp_path)
    jsonschema_rs.validate(json.loads(published.stdout), result)
    summary = result["summary"]
    assert summary["ttft_s"]["p50"]["low"] <= summary["ttft_s"]["p50"]["value"] <= summary["ttft_s"]["p50"]["high"]
    assert result["requests"]["failed"] == result["requests"]["timed_out"] == 0
    assert result["requests"]["ok"] == len(result["records"]) > 20
    assert {record["output_tokens"] for record in result["records"]} == {8}
    assert result["plan_digest"] == json.loads((tmp_path / "B.json").read_text())["plan_digest"]
    with (tmp_path / "A.csv").open() as file:
        assert len(list(csv.DictReader(file))) == len(result["records"])
    if result["valid"] and json.loads((tmp_path / "B.json").read_text())["valid"]:
        compared = octavo("compare", "A.json", "B.json", cwd=tmp_path)
        assert compared.returncode == 0, compared.stderr
        assert "no difference shown" in compared.stdout
        assert "too few runs" in compared.stdout
    reported = octavo("report", "A.json", "B.json", "--html", "r.html", "--figures", "f", cwd=tmp_path)
    assert reported.returncode == 0, reported.stderr
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "All runs" in page and "Against A" in page and result["plan_digest"] in page
    assert page.count("<svg") == len(list((tmp_path / "f").glob("*.svg"))) > 8


def test_a_sweep_writes_a_result_for_every_rate(url: str, tmp_path: Path) -> None:
    done = octavo("sweep", "--url", url, *WORKLOAD, "--rates", "5,20", "--out", "s.json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "knee:" in done.stdout
    rates = [
        json.loads((tmp_path / f"s-{rate}.json").read_text())["summary"]["request_rate_rps"]["value"]
        for rate in (5, 20)
    ]
    assert rates[0] < rates[1]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("run", "--rate", "1", "--url", "http://127.0.0.1:1"), "127.0.0.1:1"),
        (("run", "--rate", "1", "--workload", "chatt", "--url", "http://x"), "did you mean 'chat'"),
        (("run", "--rate", "1", "--slo", "ttft=500", "--url", "http://x"), "has no unit; write ttft=500ms"),
        (("run", "--rate", "1", "--form", "prose", "--url", "http://x"), "prompt form 'prose'"),
        (("sweep", "--rates", "1;2", "--url", "http://x"), "numbers with commas"),
        (("compare", "none.json", "other.json"), "cannot read none.json"),
        (("compare", "broken.json", "broken.json"), "not a result of octavo bench"),
    ],
)
def test_bad_input_gets_one_clear_line(arguments: tuple[str, ...], says: str, tmp_path: Path) -> None:
    (tmp_path / "broken.json").write_text("{")
    done = octavo(*arguments, cwd=tmp_path)
    assert done.returncode in (1, 2)
    assert says in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert done.stdout == ""
