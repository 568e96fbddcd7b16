"""``octavo bench peers``: the rows of a suite against several servers side by side, those that run and those started here."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from octavo.cli.api_key_file import read_api_key
from octavo.cli.bench_suite import Job, Markdown, Out, Rows, Seed, check_packages, finish, measuring, origin, say, write
from octavo.cli.model_argument import fetch
from octavo.config import DEFAULT_MODEL
from octavo.errors import BenchError, ConfigError

if TYPE_CHECKING:
    from octavo.bench.launched_server import LaunchedServer
    from octavo.bench.peers import Peer

AUTO = "auto"
SLOTS = 64  # as many as the widest row of the suite has users
SLOT_TOKENS = 1280  # the longest prompt of the suite and its answer


def peers(
    servers: Annotated[
        list[str] | None,
        typer.Argument(
            help="name=url, the first is compared with; octavo=auto and llama.cpp=auto are started here",
            metavar="NAME=URL...",
        ),
    ] = None,
    start: Annotated[
        list[str] | None,
        typer.Option(help="name='command {port} ...': start this server here, measure its start and memory, end it."),
    ] = None,
    model: Annotated[str, typer.Option(help="For name=auto: a registry name or a .gguf file.")] = DEFAULT_MODEL,
    served: Annotated[
        list[str] | None, typer.Option(help="name=MODEL: what that server calls the model, where it lists none.")
    ] = None,
    rows: Rows = "",
    suite_name: Annotated[str, typer.Option("--suite", help="Whose rows.")] = "cpu",
    rounds: Annotated[int, typer.Option(help="Each is A B C; four or more give narrow intervals.", min=1)] = 3,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer rows.")] = False,
    form: Annotated[
        str, typer.Option(help="Of the prompts: tokens, text, messages; auto: the most exact that all take")
    ] = AUTO,
    vocab_size: Annotated[int, typer.Option(help="Random token ids lie below it, for all servers.", min=101)] = 30_000,
    seed: Seed = 0,
    api_key_file: Annotated[
        list[str] | None, typer.Option(help="name=FILE: that server's API key is the first line of the file.")
    ] = None,
    out: Out = None,
    markdown: Markdown = None,
) -> None:
    """The same rows against several OpenAI-compatible servers, strictly interleaved (A B C A B C), side by side.

    All of them get the same prompts, in the most exact form that all take. Servers on one machine share it: those that are
    not asked should be idle. Example: octavo bench peers octavo=http://127.0.0.1:8000 llama=http://127.0.0.1:8080
    """
    check_packages()
    from octavo.bench.peers import Peer, parse_pairs
    from octavo.bench.scenarios import choose_scenarios, find_suite

    urls, commands = parse_pairs(servers or [], "URL"), parse_pairs(start or [], "command")
    _check_names(urls, commands)
    chosen = choose_scenarios(find_suite(suite_name), rows, quick=quick)
    keys = {name: read_api_key(path) for name, path in parse_pairs(api_key_file or [], "FILE").items()}
    models = parse_pairs(served or [], "MODEL")
    _check_known({"--api-key-file": keys, "--served": models}, {*urls, *commands})
    job = Job(suite_name, chosen, rounds, seed, vocab_size=vocab_size, form=form)
    to_start = {name: _automatic(name, model) for name, url in urls.items() if url == AUTO}
    to_start |= {name: _own(command) for name, command in commands.items()}
    with measuring() as ended, ExitStack() as stack:
        running: dict[str, LaunchedServer] = {}
        found = [
            _start(stack, name, to_start[name], running) if name in to_start else Peer(name=name, url=urls[name])
            for name in [*urls, *commands]
        ]
        for peer in found:
            peer.served = models.get(peer.name, "")
        result = _run(job, found, keys, out, running)
    finish(result, out, markdown)
    raise typer.Exit(ended() or (0 if result.complete else 1))


def _check_names(urls: dict[str, str], commands: dict[str, str]) -> None:
    if both := sorted(urls.keys() & commands.keys()):
        raise ConfigError(f"{both[0]!r} is given as a URL and with --start; give it another name")
    if not urls and not commands:
        raise ConfigError("no server to measure; give name=url, or --start name='command {port}'")


def _check_known(given: dict[str, dict[str, str]], names: set[str]) -> None:
    for flag, values in given.items():
        if unknown := sorted(values.keys() - names):
            raise ConfigError(f"{flag} {unknown[0]}=...: there is no server of that name")


def _own(command: str) -> Callable[[int], list[str]]:
    from octavo.bench.launched_server import command_words

    command_words(command, 1)  # what is wrong with it is said before anything is started
    return lambda port: command_words(command, port)


def _automatic(name: str, model: str) -> Callable[[int], list[str]]:
    """How an engine that is installed here is started. Raises ``ConfigError`` for one that is not known or not installed."""
    known = {"octavo": _octavo, "llama.cpp": _llama}
    if name not in known:
        raise ConfigError(f"{name}=auto: known are {', '.join(known)}; start another one with --start {name}='...'")
    return known[name](model)


def _octavo(model: str) -> Callable[[int], list[str]]:
    return lambda port: [sys.executable, "-m", "octavo.cli.main", "serve", "--port", str(port), model]


def _llama(model: str) -> Callable[[int], list[str]]:
    """One slot for each user; the rest is its own default."""
    from octavo.hardware import detect

    program = shutil.which("llama-server")
    if program is None:
        raise ConfigError("llama.cpp=auto: there is no llama-server on the PATH; see docs/bench-peers.md")
    path = fetch(model).path
    if path.suffix != ".gguf":
        raise ConfigError(f"llama.cpp=auto: {path.name} is not a .gguf file; name one with --model")
    words = [program, "-m", str(path), "-t", str(detect().num_cores), "-np", str(SLOTS), "-c", str(SLOTS * SLOT_TOKENS)]
    return lambda port: [*words, "--port", str(port)]


def _start(
    stack: ExitStack, name: str, words: Callable[[int], Sequence[str]], running: dict[str, LaunchedServer]
) -> Peer:
    """A server that does not start is a peer that died; the others go on."""
    import shlex

    from octavo.bench.launched_server import LaunchedServer, free_port
    from octavo.bench.peers import Peer

    port = free_port()
    server = LaunchedServer(name, words(port), port)
    command = shlex.join(words(port)).replace(str(Path.home()) + os.sep, "~/")
    say(f"starting {name}: {command}")
    peer = Peer(name=name, url=server.url, command=command)
    try:
        stack.enter_context(server)
    except BenchError as error:
        say(error.message)
        peer.dead = error.message
        return peer
    peer.ready_s = server.ready_s
    running[name] = server
    say(f"{name} is ready after {server.ready_s:.1f} s")
    return peer


def _run(
    job: Job, found: list[Peer], keys: dict[str, str], out: Path | None, running: dict[str, LaunchedServer]
) -> Any:
    """Writes what there is after every group."""
    from octavo.bench.calibration import calibrate
    from octavo.bench.peers import PeersComparison, PeersResult, Watch, compare_peers

    known = origin()

    def result(compared: PeersComparison) -> PeersResult:
        for peer in found:
            if (server := running.get(peer.name)) is not None:
                peer.peak_rss_bytes, peer.idle_cores = server.peak_rss_bytes or None, server.idle_cores
                peer.dead = (peer.dead and server.obituary()) or peer.dead
        return PeersResult(
            suite=job.suite,
            seed=job.seed,
            form=compared.form,
            complete=compared.complete,
            peers=found,
            rows=compared.rows,
            ratios=compared.ratios,
            calibrations=compared.calibrations,
            **known,
        )

    watch = Watch(say, lambda compared: write(out, result(compared)))
    return result(compare_peers(found, job.rows, job.options(), calibrate, watch, keys))
