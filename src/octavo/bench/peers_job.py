"""One comparison of servers, from their start to the result: ready time, memory and idle cores of those started here."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path

from octavo.bench.calibration import calibrate
from octavo.bench.launched_server import LaunchedServer, free_port
from octavo.bench.peers import Peer, PeersComparison, PeersResult, Watch, compare_peers
from octavo.bench.server_commands import AtPort
from octavo.bench.suite import Say
from octavo.bench.suite_job import SuiteJob
from octavo.errors import BenchError


class Peers:
    """The servers to compare, in order; those that are started here end with ``stack``."""

    def __init__(self, stack: ExitStack, say: Say) -> None:
        self._stack, self._say = stack, say
        self._started: dict[str, LaunchedServer] = {}
        self.all: list[Peer] = []

    def add(self, name: str, where: str | AtPort, served: str = "") -> None:
        """The URL of one that runs already, or the command that starts it. ``served``: the model to ask for."""
        if isinstance(where, str):
            self.all.append(Peer(name=name, url=where, served=served))
        else:
            self._start(name, where, served)

    def _start(self, name: str, command: AtPort, served: str) -> None:
        """One that does not start is a peer that died; the others go on."""
        port = free_port()
        words = command(port)
        server = LaunchedServer(name, words, port)
        shown = shlex.join(words).replace(str(Path.home()) + os.sep, "~/")
        self._say(f"starting {name}: {shown}")
        peer = Peer(name=name, url=server.url, command=shown, served=served)
        self.all.append(peer)
        try:
            self._stack.enter_context(server)
        except BenchError as error:
            self._say(error.message)
            peer.dead = error.message
            return
        peer.ready_s = server.ready_s
        self._started[name] = server
        self._say(f"{name} is ready after {server.ready_s:.1f} s")

    def observe(self) -> list[Peer]:
        """All, with the memory and idle cores of those started here, and how one of them ended."""
        for peer in self.all:
            if (server := self._started.get(peer.name)) is not None:
                peer.peak_rss_bytes, peer.idle_cores = server.peak_rss_bytes or None, server.idle_cores
                peer.dead = (peer.dead and server.obituary()) or peer.dead
        return self.all


def run_peers(
    job: SuiteJob, peers: Peers, api_keys: Mapping[str, str], keep: Callable[[PeersResult], None], say: Say
) -> PeersResult:
    """``keep`` gets what there is after every group. Raises ``BenchError`` if nothing was measured."""

    def result(compared: PeersComparison) -> PeersResult:
        return PeersResult(
            suite=job.suite,
            seed=job.seed,
            form=compared.form,
            complete=compared.complete,
            peers=peers.observe(),
            rows=compared.rows,
            ratios=compared.ratios,
            calibrations=compared.calibrations,
            **job.origin,
        )

    watch = Watch(say, lambda compared: keep(result(compared)))
    return result(compare_peers(peers.all, job.scenarios, job.options(), calibrate, watch, dict(api_keys)))
