"""``octavo bench peers``: the scenarios of a suite against several servers side by side, running ones and those started here."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from octavo.cli.api_key_file import read_api_key
from octavo.cli.bench_scenarios import Markdown, Out, Rows, Seed, check_packages, finish, write
from octavo.cli.flags import GroupedCommand
from octavo.cli.model_argument import fetch
from octavo.cli.output import say
from octavo.config import DEFAULT_MODEL
from octavo.errors import ConfigError

if TYPE_CHECKING:
    from octavo.bench.server_commands import AtPort

AUTO = "auto"


def register(bench: typer.Typer) -> None:
    bench.command("peers", cls=GroupedCommand, short_help="The same rows against several servers, interleaved.")(peers)


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
    from octavo.bench import provenance
    from octavo.bench.peers import parse_pairs
    from octavo.bench.peers_job import Peers, run_peers
    from octavo.bench.scenarios import choose_scenarios, find_suite
    from octavo.bench.suite_job import SuiteJob
    from octavo.bench.termination import sigterm_as_interrupt

    urls, commands = parse_pairs(servers or [], "URL"), parse_pairs(start or [], "command")
    _check_names(urls, commands)
    chosen = choose_scenarios(find_suite(suite_name), rows, quick=quick)
    keys = {name: read_api_key(path) for name, path in parse_pairs(api_key_file or [], "FILE").items()}
    models = parse_pairs(served or [], "MODEL")
    _check_known({"--api-key-file": keys, "--served": models}, {*urls, *commands})
    origin = provenance.origin(sys.argv[1:])
    job = SuiteJob(suite_name, chosen, rounds, seed, origin, form=form, vocab_size=vocab_size)
    places = _places(urls, commands, model)
    with sigterm_as_interrupt() as ended, ExitStack() as stack:
        found = Peers(stack, say)
        for name, where in places.items():
            found.add(name, where, models.get(name, ""))
        result = run_peers(job, found, keys, lambda so_far: write(out, so_far), say)
    finish(result, out, markdown)
    raise typer.Exit(ended() or (0 if result.complete else 1))


def _places(urls: dict[str, str], commands: dict[str, str], model: str) -> dict[str, str | AtPort]:
    """By name: the URL of a server that runs, or the command that starts it. Raises ``ConfigError``."""
    from octavo.bench.server_commands import known_command, own_command

    def find(name: str) -> Path:
        return fetch(name).path

    found = {name: known_command(name, model, find) if url == AUTO else url for name, url in urls.items()}
    return found | {name: own_command(command) for name, command in commands.items()}


def _check_names(urls: dict[str, str], commands: dict[str, str]) -> None:
    if both := sorted(urls.keys() & commands.keys()):
        raise ConfigError(f"{both[0]!r} is given as a URL and with --start; give it another name")
    if not urls and not commands:
        raise ConfigError("no server to measure; give name=url, or --start name='command {port}'")


def _check_known(given: dict[str, dict[str, str]], names: set[str]) -> None:
    for flag, values in given.items():
        if unknown := sorted(values.keys() - names):
            raise ConfigError(f"{flag} {unknown[0]}=...: there is no server of that name")
