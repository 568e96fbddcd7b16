"""Shared parts of `octavo bench run` and `sweep`: target server, load plan, and one run from its plan to its file."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import typer

from octavo.cli.api_key_file import read_api_key
from octavo.cli.output import stderr, stdout
from octavo.errors import ConfigError

if TYPE_CHECKING:
    from octavo.bench.client.target import Target
    from octavo.bench.plan import PlanOptions
    from octavo.bench.server_set import Servers
    from octavo.bench.types import Run, Slo

EXIT_INTERRUPTED = 130


@dataclass(frozen=True)
class Asked:
    """The flags that say what is sent, as they were typed."""

    workload: str
    arrivals: str
    duration: str
    slo: str
    seed: int
    form: str
    vocab_size: int
    max_prompt: int
    max_output: int
    num_requests: int = 0
    speed: float = 0.0


class RunLabel(NamedTuple):
    """A run's name in comparisons, and the result file."""

    name: str
    path: Path


class Measurement:
    """One workload with its SLO. Bad flags are refused here, before a server is started."""

    def __init__(self, asked: Asked) -> None:
        from octavo.bench.slo import parse_slo
        from octavo.bench.types import Slo

        self.slo: Slo = parse_slo(asked.slo) if asked.slo else Slo()
        self._workload, self._arrivals = asked.workload, asked.arrivals or None
        self._options = _plan_options(asked)

    def check(self, rate: float) -> None:
        """Raises ``ConfigError`` or ``BenchError`` for what cannot be planned."""
        from octavo.bench.plan import make_plan

        make_plan(self._workload, self._arrivals, self._at(rate, 0))

    def run(self, target: Target, rate: float, label: RunLabel, repeat: int = 0) -> Run:
        """Plan, send, summarise, write, show. ``repeat``: the same times and lengths with fresh prompts, so that no run is
        answered from the cache of the one before. A run that was stopped is written as well, then ``typer.Exit`` is raised."""
        from octavo.bench.assemble import Context, assemble
        from octavo.bench.client.options import ClientOptions
        from octavo.bench.live import live_view
        from octavo.bench.plan import make_plan
        from octavo.bench.result import save
        from octavo.bench.run import run_blocking

        plan = make_plan(self._workload, self._arrivals, self._at(rate, repeat))
        name, path = label.name, label.path
        path.parent.mkdir(parents=True, exist_ok=True)
        journal = path.with_suffix(".journal.jsonl")
        with live_view(name) as observer:
            outcome = run_blocking(plan, target, ClientOptions(journal=str(journal)), observer)
        result = assemble(plan, outcome, Context(name, target.url, self.slo, sys.argv[1:]))
        save(result, path)
        journal.unlink(missing_ok=True)  # everything in it is in the result now
        show(result, path)
        if outcome.stopped_by_user:
            raise Stopped(result)
        return result

    def _at(self, rate: float, repeat: int) -> PlanOptions:
        prompts = msgspec.structs.replace(self._options.prompts, repeat=repeat)
        return msgspec.structs.replace(self._options, rate=rate or None, prompts=prompts)


class Stopped(typer.Exit):
    """Ctrl-C ended this run; it is on disk."""

    def __init__(self, run: Run) -> None:
        super().__init__(EXIT_INTERRUPTED)
        self.run = run


def show(result: Run, path: Path) -> None:
    from octavo.bench.run_table import run_lines, run_table

    console = stdout()
    title, *lines = run_lines(result)
    console.print(title, markup=False, soft_wrap=True)
    console.print(run_table(result))
    for line in lines:
        console.print(line, markup=False, soft_wrap=True)
    stderr().print(f"result: {path}", soft_wrap=True)


def parse_servers(url: Sequence[str], start: Sequence[str], model: str, key_files: Sequence[str], name: str) -> Servers:
    """``--url`` and ``--start``: ``name=value``, or one value alone, which is called ``name``. Raises ``ConfigError``."""
    from octavo.bench.launched_server import command_words
    from octavo.bench.peers import parse_pairs
    from octavo.bench.server_set import Servers

    items = [*url, *start]
    bare = [item for item in items if not _has_name(item)]
    if bare and len(items) > 1:
        raise ConfigError(f"{bare[0]!r}: of several servers each needs a name; write A={bare[0]}", param="url")
    urls, commands = (
        {name: given[0]} if bare and given else parse_pairs(given, what)
        for given, what in ((url, "URL"), (start, "command"))
    )
    for command in commands.values():
        command_words(command, 1)
    if both := urls.keys() & commands.keys():
        raise ConfigError(f"{min(both)!r} is given with --url and with --start; give one of them another name")
    if model and commands:
        raise ConfigError("--model: say it in the command of --start")
    return Servers(urls, commands, model, _keys(key_files, [*urls, *commands]))


def _has_name(item: str) -> bool:
    return re.match(r"[\w.-]+=", item) is not None


def _keys(files: Sequence[str], names: Sequence[str]) -> dict[str, str]:
    """``FILE`` for every server, ``name=FILE`` for one of them."""
    if files and not names:
        raise ConfigError("--api-key-file: the default server started here wants no key; leave it out or give --url")
    keys: dict[str, str] = {}
    for item in sorted(files, key=lambda item: item.partition("=")[0] in names):
        name, _, file = item.partition("=")
        if name in names and file:
            keys[name] = read_api_key(file)
        else:
            keys |= dict.fromkeys(names, read_api_key(item))
    return keys


def _plan_options(asked: Asked) -> PlanOptions:
    from octavo.bench.plan import PlanOptions
    from octavo.bench.prompts import PromptOptions
    from octavo.durations import parse_run_time

    return PlanOptions(
        seed=asked.seed,
        speed=asked.speed or None,
        duration_s=None if asked.duration.strip() in ("0", "0s") else parse_run_time(asked.duration),
        num_requests=asked.num_requests or None,
        prompts=PromptOptions(
            form=asked.form,
            vocab_high=asked.vocab_size,
            max_prompt_tokens=asked.max_prompt or None,
            max_output_tokens=asked.max_output or None,
        ),
    )
