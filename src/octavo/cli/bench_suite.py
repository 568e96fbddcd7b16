"""``octavo bench suite``: the fixed scenarios by which this engine is measured, in this process and over HTTP."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from octavo.cli.bench_scenarios import Markdown, Out, Rows, Seed, check_packages, finish, write
from octavo.cli.flags import FlagGroup, Given, GroupedCommand, with_flags
from octavo.cli.model_argument import FAKE, fetch, reconcile
from octavo.cli.output import say
from octavo.config import DEFAULT_MODEL, EngineConfig
from octavo.errors import ConfigError

if TYPE_CHECKING:
    from octavo.bench.offline_target import MeasuredModel
    from octavo.bench.suite_job import SuiteJob


def register(bench: typer.Typer) -> None:
    bench.command("suite", cls=GroupedCommand, short_help="Measure this engine by its fixed set of rows.")(suite)


@with_flags(FlagGroup(EngineConfig, "Engine (not with --url)", omit=("seed",)))
def suite(
    name: Annotated[str, typer.Argument(help="Which suite.", show_default=True)] = "cpu",
    model: Annotated[
        str | None, typer.Option(help=f"Registry name, folder, .gguf file or hf://org/name (default: {DEFAULT_MODEL})")
    ] = None,
    url: Annotated[
        str | None, typer.Option(help="Measure the server there instead of one that is started here.", metavar="URL")
    ] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Only the engine in this process, without HTTP.")] = False,
    http: Annotated[bool, typer.Option("--http", help="Only over HTTP.")] = False,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer rows and repetitions.")] = False,
    rows: Rows = "",
    repetitions: Annotated[int | None, typer.Option(help="Of every row (default: the suite's own).", min=1)] = None,
    seed: Seed = 0,
    out: Out = None,
    markdown: Markdown = None,
    *,
    given: Given,
) -> None:
    """Measure the engine by its fixed rows: in this process (offline), over HTTP, and what share of the machine's limit it is.

    The limit of every row is arithmetic on the model and a calibration of this machine measured beside it. With --url, the
    model behind it is unknown: no limits, unless --model names it.
    """
    check_packages()
    from octavo.bench import provenance
    from octavo.bench.scenarios import choose_scenarios, find_suite
    from octavo.bench.suite_job import SuiteJob, run_suite
    from octavo.bench.suite_targets import Here, open_here, open_url
    from octavo.bench.termination import sigterm_as_interrupt

    if offline and (http or url):
        raise ConfigError(f"--offline does not go with {'--http' if http else '--url'}; leave out one of them")
    if url and (flags := given.flags[EngineConfig]):
        raise ConfigError(f"{', '.join(flags)}: the server at {url} has its own; leave them out or leave out --url")
    found = find_suite(name)
    chosen = choose_scenarios(found, rows, quick=quick)
    count = repetitions or (found.quick_repetitions if quick else found.repetitions)
    with sigterm_as_interrupt() as ended, ExitStack() as stack:
        known = _model(model, given) if url is None or model is not None else None
        job = _job(SuiteJob(name, chosen, count, seed, provenance.origin(sys.argv[1:])), known)
        if url is not None:
            targets, facts = open_url(url, known)
        else:
            assert known is not None
            targets, facts = open_here(stack, Here(not http, not offline, given.flags[EngineConfig]), known, say)
        result = run_suite(job, targets, facts, lambda so_far: write(out, so_far), say)
    finish(result, out, markdown)
    raise typer.Exit(ended() or (0 if result.complete else 1))


def _model(name: str | None, given: Given) -> MeasuredModel:
    """Find (or fetch) the model and settle what the engine will do with it on this machine."""
    from octavo.bench.offline_target import measured_model

    model, config = reconcile(name, given.config(EngineConfig), DEFAULT_MODEL)
    return measured_model(model, None if model == FAKE else fetch(model).path, config)


def _job(job: SuiteJob, model: MeasuredModel | None) -> SuiteJob:
    if model is None:
        return job
    return replace(job, num_threads=model.num_threads, vocab_size=model.vocab_size, max_context=model.max_context)
