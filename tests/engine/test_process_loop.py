"""The engine process from inside: its socket, its signals, and what it does without anyone to talk to."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time

import psutil
import pytest

from octavo.config import EngineConfig
from octavo.engine import messages as m
from octavo.engine.process import EXIT_FAILED, EXIT_ORPHANED, MAX_UNSENT_BYTES, Outbox
from octavo.types import EngineStats, FinishReason, TokenEvent
from support.engine_client import STAND_IN_COMMAND, submission


class Peer:
    """The server's end of an engine process, without asyncio."""

    def __init__(self, name: str = "stand-in", **settings: object) -> None:
        self.sock, theirs = socket.socketpair()
        with theirs:
            self.process = subprocess.Popen(
                [*STAND_IN_COMMAND, str(theirs.fileno())], pass_fds=[theirs.fileno()], stderr=subprocess.PIPE
            )
        self._reader, self._decoder, self._waiting = m.FrameReader(), m.EngineMessageDecoder(), []
        self.send(m.Start(config=EngineConfig(**settings), model=m.ModelSource(name=name)))

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *exc: object) -> None:
        self.process.kill()
        self.process.communicate()
        self.sock.close()

    def send(self, *messages: m.ToEngine) -> None:
        self.sock.sendall(b"".join(m.FrameWriter().frame(message) for message in messages))

    def receive(self) -> m.FromEngine:
        self.sock.settimeout(20.0)
        while not self._waiting:
            data = self.sock.recv(65536)
            assert data, "the engine closed its socket"
            self._waiting = [self._decoder.decode(body) for body in self._reader.feed(data)]
        return self._waiting.pop(0)

    def events_until_end(self) -> list[TokenEvent]:
        events: list[TokenEvent] = []
        while not events or events[-1].finish_reason is None:
            message = self.receive()
            assert isinstance(message, m.Report)
            events += message.events
        return events


def test_a_whole_life():
    with Peer() as peer:
        ready = peer.receive()
        assert isinstance(ready, m.EngineReady)
        assert ready.reasons == {"num_blocks": "because the test says so"}
        peer.send(m.Submit(submission(request_id="a", max_tokens=3)))
        events = peer.events_until_end()
        assert [event.request_id for event in events] == ["a", "a", "a"]
        peer.send(m.Shutdown())
        assert peer.process.wait(10) == 0


def test_every_step_is_reported_even_without_events():
    with Peer(max_step_tokens=64, max_num_running=4) as peer:
        peer.receive()
        peer.send(m.Submit(submission(num_prompt=200, max_tokens=1)))
        reports = [peer.receive() for _ in range(4)]  # the prompt takes four chunks
        assert [len(report.events) for report in reports] == [0, 0, 0, 1]
        assert [report.stats.total_steps for report in reports] == [1, 2, 3, 4]


def test_an_abort_is_confirmed_by_the_terminal_event_even_if_nothing_else_runs():
    with Peer(fake_step_ms=1) as peer:
        peer.receive()
        peer.send(m.Submit(submission(request_id="a", max_tokens=4000)))
        peer.receive()
        peer.send(m.Abort("a"), m.Abort("never-heard-of"))
        assert peer.events_until_end()[-1].finish_reason is FinishReason.ABORT


def test_bad_submissions_are_refused_and_harm_nobody():
    with Peer() as peer:
        peer.receive()
        peer.send(
            m.Submit(submission(request_id="typed", max_tokens="many")),
            m.Submit(submission(request_id="long", num_prompt=5000)),
            m.Submit(submission(request_id="good", max_tokens=1)),
        )
        refused = [peer.receive(), peer.receive()]
        assert [(r.request_id, r.code) for r in refused] == [
            ("typed", "invalid_value"),
            ("long", "context_length_exceeded"),
        ]
        assert peer.events_until_end()[0].request_id == "good"


def test_signals_meant_for_the_server_do_not_end_it():
    with Peer() as peer:
        peer.receive()
        for number in (signal.SIGINT, signal.SIGTERM):
            peer.process.send_signal(number)
        peer.send(m.Submit(submission(max_tokens=1)))
        assert len(peer.events_until_end()) == 1


@pytest.mark.parametrize("busy", [False, True], ids=["idle", "busy"])
def test_it_goes_with_its_server(busy):
    with Peer(fake_step_ms=20) as peer:
        peer.receive()
        if busy:
            peer.send(m.Submit(submission(max_tokens=4000)))
            peer.receive()
        peer.sock.close()
        assert peer.process.wait(5) == EXIT_ORPHANED


def test_it_goes_with_its_server_while_it_loads():
    with Peer("slow") as peer:
        time.sleep(0.3)
        peer.sock.close()
        assert peer.process.wait(5) == EXIT_ORPHANED


def test_garbage_from_the_server_ends_it_with_one_line():
    with Peer() as peer:
        peer.receive()
        peer.sock.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert peer.process.wait(5) == EXIT_FAILED
        stderr = peer.process.stderr.read().decode()
        assert "a frame claims" in stderr
        assert "Traceback" not in stderr


def test_a_start_error_is_sent_and_not_printed():
    with Peer("unsupported") as peer:
        assert peer.receive() == m.Failed(
            code="unsupported_model", message="architecture 'abacus' is unknown; known: llama", param="model"
        )
        assert peer.process.wait(5) == EXIT_FAILED
        assert peer.process.stderr.read() == b""


def test_an_idle_engine_uses_no_processor_time():
    with Peer() as peer:
        peer.receive()
        peer.send(m.Submit(submission(max_tokens=1)))
        peer.receive()

        process = psutil.Process(peer.process.pid)
        before = process.cpu_times()
        time.sleep(0.5)
        after = process.cpu_times()
        assert after.user + after.system - before.user - before.system <= 0.02


def test_the_outbox_waits_for_a_slow_server_with_bounded_memory():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        outbox = Outbox(ours)
        report = m.Report([TokenEvent(request_id=f"r{i}", token_ids=(i,)) for i in range(256)], EngineStats())
        num_bytes = len(m.FrameWriter().frame(report))
        num_reports = 3 * MAX_UNSENT_BYTES // num_bytes
        sent = []

        def send_all() -> None:
            for i in range(num_reports):
                outbox.send(report)
                sent.append(i)
            outbox.flush()

        sender = threading.Thread(target=send_all, daemon=True)
        sender.start()
        deadline = time.monotonic() + 10.0
        while len(sent) * num_bytes < MAX_UNSENT_BYTES and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.1)
        assert sender.is_alive(), "the outbox took more than its bound without a reader"
        assert len(sent) * num_bytes < MAX_UNSENT_BYTES + (2 << 20)

        reader, decoder, received = m.FrameReader(), m.EngineMessageDecoder(), 0
        theirs.settimeout(10.0)
        while received < num_reports:
            for body in reader.feed(theirs.recv(1 << 20)):
                assert decoder.decode(body) == report
                received += 1
        sender.join(5.0)
        assert not sender.is_alive()


def test_the_boundary_imports_no_heavy_packages():
    code = "import octavo.engine.client, octavo.engine.local_client, octavo.engine.process, sys; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout.split()
    assert not {"torch", "numpy", "gguf", "tokenizers", "octavo.engine.core"} & set(loaded)


def test_the_real_program_is_what_the_client_starts():
    from octavo.engine.process_handle import ENGINE_COMMAND

    ours, theirs = socket.socketpair()
    with ours, theirs:
        start = m.Start(config=EngineConfig(dtype="float7"), model=m.ModelSource(name="fake"))
        ours.sendall(m.FrameWriter().frame(start))
        process = subprocess.Popen([*ENGINE_COMMAND, str(theirs.fileno())], pass_fds=[theirs.fileno()])
        theirs.close()
        ours.settimeout(60.0)
        reader, bodies = m.FrameReader(), []
        while not bodies:
            bodies = reader.feed(ours.recv(65536))
        failed = m.EngineMessageDecoder().decode(bodies[0])
        assert isinstance(failed, m.Failed)
        assert failed.code == "config_error"
        assert "float7" in failed.message
        assert process.wait(20) == EXIT_FAILED
    assert os.getpid() != process.pid
