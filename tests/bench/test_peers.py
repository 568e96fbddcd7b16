"""Servers side by side: strictly interleaved, asked in what all understand, the dead reported and the rest measured."""

from __future__ import annotations

import asyncio
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import numpy as np
import psutil
import pytest
from scipy import stats

from octavo.bench.calibration import Calibration
from octavo.bench.client.target import Target
from octavo.bench.http_target import Abilities, asked_form, common_form, probe
from octavo.bench.launched_server import LaunchedServer, command_words, free_port
from octavo.bench.peers import Peer, PeersResult, Watch, compare_peers, paired_ratios, parse_pairs, ratio_of_rounds
from octavo.bench.scenario_metrics import Measured
from octavo.bench.scenarios import Scenario
from octavo.bench.server_commands import known_command, octavo_serve
from octavo.bench.suite import Repetition, ScenarioResult, SuiteOptions
from octavo.bench.suite_table import peers_grid, peers_markdown, servers_grid
from octavo.bench.throughput import Figure
from octavo.errors import BenchError, ConfigError
from support.stub_server import StubConfig, StubServer, serve

ROWS = (Scenario("burst", "synthetic:prompt=8,output=5", users=2, num_requests=2),)
NAMES = ("first", "second")


@contextmanager
def stub(config: StubConfig | None = None) -> Iterator[StubServer]:
    """A stub in a thread of its own: what is tested here has loops of its own."""
    loop = asyncio.new_event_loop()
    ready, over = threading.Event(), asyncio.Event()
    servers: list[StubServer] = []

    async def live() -> None:
        async with serve(config) as server:
            servers.append(server)
            ready.set()
            await over.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(live(),))
    thread.start()
    try:
        assert ready.wait(30)
        yield servers[0]
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join()
        loop.close()


def calibrate() -> Calibration:
    one = Figure(1.0, 1.0, 1.0, 1)
    return Calibration(
        created="",
        num_threads=1,
        memory_gb_per_s=one,
        f32_gflops=one,
        bf16_gflops=None,
        int8_gflops=None,
        took_s=0.0,
    )


def test_a_dying_peer_is_reported_and_the_others_go_on() -> None:
    said: list[str] = []
    # it dies after the three questions of the probe, the warm-ups and the first round, in the second
    with stub() as first, stub(StubConfig(die_after=3 + 2 + 16 + 2 + 1)) as second:
        peers = [Peer(name="first", url=first.url), Peer(name="second", url=second.url)]
        peers.append(Peer(name="absent", url=f"http://127.0.0.1:{free_port()}"))
        found = compare_peers(peers, ROWS, SuiteOptions(repetitions=3, form="auto"), calibrate, Watch(said.append))
        bodies = [one.body for one in first.requests[3 + 2 + 16 :]]
    assert found.form == "tokens" and len(bodies) == 6
    assert all(one["ignore_eos"] and one["temperature"] == 0 and len(one["prompt"]) == 8 for one in bodies)
    assert len({tuple(one["prompt"]) for one in bodies}) == 6  # fresh tokens in every round
    rows = {row.target: row for row in found.rows}
    assert [one.measured.ok for one in rows["first"].repetitions] == [2, 2, 2]
    assert rows["first"].num_failed == 0
    assert all(note.startswith("not valid: the client") or "prefix cache" in note for note in rows["first"].notes)
    assert rows["second"].repetitions[0].measured.ok == 2
    assert peers[1].dead and "cannot reach" in peers[1].dead
    assert peers[2].dead and peers[2].abilities is None
    assert any(line.startswith("absent: cannot ask") for line in said)
    assert {(one.peer, one.metric) for one in found.ratios} >= {("second", "output_tokens_per_s")}

    result = PeersResult(
        suite="cpu",
        created="now",
        command="octavo bench peers",
        commit="abc",
        octavo_version="1",
        machine={},
        seed=0,
        form=found.form,
        peers=peers,
        rows=found.rows,
        ratios=found.ratios,
        calibrations=found.calibrations,
    )
    page = peers_markdown(result)
    assert "| absent | - |" in page and "gone: cannot ask" in page and "| burst | second |" in page
    assert [row[0] for row in servers_grid(result).rows] == ["first", "second", "absent"]
    assert [row[1] for row in peers_grid(result).rows] == ["first", "second"]
    assert msgspec.json.decode(msgspec.json.encode(result), type=PeersResult).ratios == found.ratios


def test_nobody_answers() -> None:
    peer = Peer(name="absent", url=f"http://127.0.0.1:{free_port()}")
    with pytest.raises(BenchError, match="no server answers: absent: cannot ask"):
        compare_peers([peer], ROWS, SuiteOptions(form="auto"), calibrate)


def test_what_a_server_can_do_is_asked() -> None:
    with stub(StubConfig(model="known")) as able:
        found = probe(Target(url=able.url))
        assert found == Abilities(model="known", forms=("tokens", "text", "messages"), ignore_eos=True, usage=True)
        assert [one.body["max_tokens"] for one in able.requests] == [24, 24, 24]
    with stub(StubConfig(usage=False)) as silent:
        found = probe(Target(url=silent.url))
        assert not found.usage and "chunks are counted" in found.describe()
    with stub(StubConfig(refuse_rate=1.0)) as full, pytest.raises(BenchError, match=r"no kind of prompt.*503"):
        probe(Target(url=full.url))
    with stub(StubConfig(api_key="secret")) as locked:
        assert probe(Target(url=locked.url, api_key="secret")).forms[0] == "tokens"


def test_a_server_is_asked_for_the_model_that_was_named() -> None:
    with stub(StubConfig(model="known")) as server:
        assert probe(Target(url=server.url, model="folder/of its own")).model == "folder/of its own"
        assert {one.body["model"] for one in server.requests} == {"folder/of its own"}
        peer = Peer(name="first", url=server.url, served="other")
        with pytest.raises(BenchError, match="has no model 'other'; it lists known"):
            compare_peers([peer], ROWS, SuiteOptions(form="auto"), calibrate)


def abilities(*forms: str) -> Abilities:
    return Abilities(model="m", forms=forms, ignore_eos=True, usage=True)


def test_all_are_asked_the_same() -> None:
    every = abilities("tokens", "text", "messages")
    assert common_form([every, every]) == "tokens"
    assert common_form([every, abilities("text", "messages")]) == "text"
    assert common_form([abilities("messages"), every]) == "messages"
    with pytest.raises(BenchError, match="no form of prompt"):
        common_form([abilities("messages"), abilities("tokens")])


def row(target: str, rates: list[float], failed: int = 0) -> ScenarioResult:
    measured = [Measured(ok=1, failed=failed, output_tokens_per_s=rate) for rate in rates]
    return ScenarioResult(
        row="r",
        target=target,
        workload="w",
        users=1,
        num_requests=1,
        repetitions=[Repetition(measured=one, limit=None, calibration=i) for i, one in enumerate(measured)],
    )


def test_ratios_are_taken_within_rounds() -> None:
    """The machine halves its speed in round 2; the ratio does not care."""
    rows = [row("first", [10.0, 5.0, 10.0]), row("second", [20.0, 10.0, 20.0])]
    (found,) = paired_ratios(rows, NAMES)
    assert (found.ratio.value, found.ratio.low, found.ratio.high) == pytest.approx((2.0, 2.0, 2.0))
    assert (found.baseline, found.peer, found.num_rounds) == ("first", "second", 3)
    assert paired_ratios([rows[0], row("second", [20.0] * 3, failed=1)], NAMES) == []


def test_the_interval_of_a_ratio_covers_the_truth(seed: int) -> None:
    rng = np.random.default_rng(seed)
    hits, num_trials = 0, 400
    for _ in range(num_trials):
        found = ratio_of_rounds(np.exp(rng.normal(0.3, 0.2, 4)).tolist())
        assert found.low is not None and found.high is not None
        hits += found.low <= np.exp(0.3) <= found.high
    low, high = stats.binom.interval(0.99999, num_trials, 0.95)
    assert low <= hits <= high
    assert ratio_of_rounds([2.0]).low is None


def test_pairs_of_name_and_value() -> None:
    assert parse_pairs(["a=http://x:1/?b=c", "b=y"], "URL") == {"a": "http://x:1/?b=c", "b": "y"}
    for wrong, message in ((["http://x"], "write it as name=URL"), (["a="], "name=URL"), (["a=b", "a=c"], "twice")):
        with pytest.raises(ConfigError, match=message):
            parse_pairs(wrong, "URL")
    assert command_words("serve 'a b' --port {port}", 81) == ["serve", "a b", "--port", "81"]
    with pytest.raises(ConfigError, match=r"write \{port\}"):
        command_words("serve --port 80", 81)
    with pytest.raises(ConfigError, match="quotation"):
        command_words("serve 'a --port {port}", 81)


SERVER = """
import http.server, subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
open(sys.argv[2], "w").write(str(child.pid))
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/v1/models" else 404)
        self.end_headers()
        self.wfile.write(b"{}")
    def log_message(self, *words): pass
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


def gone(pid: int) -> bool:
    """Or dead and only not yet buried by whoever inherited it."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_a_server_started_here_is_measured_and_ended_with_its_children(tmp_path: Path) -> None:
    port, note = free_port(), tmp_path / "child"
    with LaunchedServer("mine", [sys.executable, "-c", SERVER, str(port), str(note)], port, 60.0) as server:
        child = int(note.read_text())
        assert not gone(child)
        assert server.ready_s is not None and server.ready_s > 0
    assert server.peak_rss_bytes > 4 << 20
    end_s = time.monotonic() + 30
    while not gone(child):
        assert time.monotonic() < end_s, "the server's child lives on"
        time.sleep(0.01)


def test_a_server_that_does_not_start_says_why() -> None:
    words = [sys.executable, "-c", "import sys; sys.exit('no such model')"]
    with pytest.raises(BenchError, match="code 1 before it was ready; it said: no such model"):
        LaunchedServer("mine", words, free_port(), 60.0).__enter__()
    with pytest.raises(BenchError, match="cannot start /nowhere/server"):
        LaunchedServer("mine", ["/nowhere/server"], free_port()).__enter__()


IDLE = """
import http.server, sys, threading
if sys.argv[2] == "spins":
    threading.Thread(target=lambda: [None for _ in iter(int, 1)], daemon=True).start()
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
    def log_message(self, *words): pass
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


def test_how_a_server_died_is_told() -> None:
    port = free_port()
    with LaunchedServer("mine", [sys.executable, "-c", IDLE, str(port), "sleeps"], port, 60.0) as server:
        assert server.obituary() == ""
        server._process.kill()
        server._process.wait()
        assert server.obituary() == "the server was killed by signal 9 (out of memory?); it said: nothing"


def idle_cores(how: str) -> float:
    port = free_port()
    with LaunchedServer("mine", [sys.executable, "-c", IDLE, str(port), how], port, 60.0) as server:
        end_s = time.monotonic() + 30
        while server.idle_cores is None:
            assert time.monotonic() < end_s, "never looked at"
            time.sleep(0.05)
        return server.idle_cores


def test_a_server_that_spins_while_idle_is_noticed() -> None:
    sleeps, spins = idle_cores("sleeps"), idle_cores("spins")
    assert 0 <= sleeps < spins <= 1.5


def test_the_form_that_was_asked_for() -> None:
    every, words = abilities("tokens", "text", "messages"), abilities("text", "messages")
    assert asked_form("text", [every, words]) == "text"
    with pytest.raises(BenchError, match="m takes no prompts as tokens, only as text and messages"):
        asked_form("tokens", [every, words])
    with pytest.raises(ConfigError, match="known: tokens, text, messages"):
        asked_form("words", [every])


def test_known_engines_are_started_by_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    words = known_command("octavo", "small", Path)(81)
    assert words[1:] == ["-m", "octavo.cli.main", "serve", "--port", "81", "small"]
    with pytest.raises(ConfigError, match=r"known are octavo, llama\.cpp"):
        known_command("other", "small", Path)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="no llama-server on the PATH"):
        known_command("llama.cpp", "small", Path)
    program, model = tmp_path / "llama-server", tmp_path / "small.gguf"
    program.write_text("#!/bin/sh")
    program.chmod(0o755)
    model.write_bytes(b"GGUF")
    words = known_command("llama.cpp", str(model), Path)(81)
    assert words[:3] == [str(program), "-m", str(model)] and words[-2:] == ["--port", "81"]


def test_flags_of_the_engine_are_passed_to_octavo_serve() -> None:
    flags = {"block_size": 32, "prefix_cache": False, "step_log": True}
    assert octavo_serve("{port}", flags=flags)[4:] == [
        "--port",
        "{port}",
        "--block-size",
        "32",
        "--no-prefix-cache",
        "--step-log",
    ]


def test_a_command_that_is_told_to_end_leaves_its_figures_and_no_server(tmp_path: Path) -> None:
    """SIGTERM in the middle of the rounds: the result has what was measured, the server started by the command is gone."""
    out, note = tmp_path / "peers.json", tmp_path / "pid"
    serve = shlex.join([sys.executable, "-m", "octavo.cli.main", "serve", "--executor", "fake", "--port"])
    start = shlex.join(["sh", "-c", f"echo $$ > {note}; exec {serve} $0", "{port}"])
    words = ["bench", "peers", "--start", f"mine={start}", "--rows", "single", "--rounds", "1000", "--out", str(out)]
    process = subprocess.Popen([sys.executable, "-m", "octavo.cli.main", *words], stderr=subprocess.PIPE, text=True)
    try:
        wait_for(out.exists, process)
        partial = msgspec.json.decode(out.read_bytes(), type=PeersResult)
        server = int(note.read_text())
        assert not partial.complete and partial.rows and not gone(server)
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 128 + signal.SIGTERM, said
    wait_for(lambda: gone(server), None)
    last = msgspec.json.decode(out.read_bytes(), type=PeersResult)
    assert not last.complete and len(last.rows[0].repetitions) >= len(partial.rows[0].repetitions)


def wait_for(happened: Callable[[], bool], process: subprocess.Popen[str] | None) -> None:
    end_s = time.monotonic() + 90
    while not happened():
        assert time.monotonic() < end_s
        assert process is None or process.poll() is None, process.stderr and process.stderr.read()
        time.sleep(0.02)
