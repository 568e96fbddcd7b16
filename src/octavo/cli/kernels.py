"""Command ``octavo kernels``: list, check, bench, explain and tune the operations, and the torch.compile study."""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from octavo.cli.output import stdout
from octavo.errors import ConfigError
from octavo.extras import require

if TYPE_CHECKING:
    import torch

    from octavo.kernels.gpu.lab.benchmark import Row
    from octavo.kernels.operation import Operation

AsJson = Annotated[bool, typer.Option("--json", help="As JSON, for programs.")]
OnGpu = Annotated[bool, typer.Option("--gpu", help="On the GPU; without it on the CPU, Triton in its interpreter.")]
Name = Annotated[str, typer.Argument(help="Operation; all, if none is named.", metavar="[OP]", show_default=False)]
MOST_LAYERS_ON_A_CPU = 4  # of Llama-3.1-8B in float32: 8 GB
NEEDED = "the operations need"  # torch: their schemas, references and test inputs are tensors
ABOUT = "The operations of the kernels room: check, time, tune and explain them."


def register(app: typer.Typer) -> None:
    kernels = typer.Typer(rich_markup_mode=None)
    kernels.command("list", short_help="Operations, back ends, where they run, what they reach.")(list_operations)
    kernels.command("check", short_help="Test every back end against its float64 reference.")(check)
    kernels.command("bench", short_help="Time, GB/s, TFLOP/s, beside torch and the machine's limit.")(bench)
    kernels.command("explain", short_help="The optimisation steps of a kernel.")(explain)
    kernels.command("tune", short_help="Find the best tile sizes on this GPU.")(tune)
    kernels.command("compile-study", short_help="What torch.compile gains and costs, mode by mode.")(compile_study)
    app.add_typer(kernels, name="kernels", short_help=ABOUT, help=ABOUT)


def list_operations(as_json: AsJson = False) -> None:
    """Every operation: its back ends, where each runs, on what it was tested, and the fraction of the limit it reaches there."""
    require("torch", NEEDED)
    from octavo.kernels.registry import NAMES, operation

    rows = [_facts(operation(name)) for name in NAMES]
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    table = _table("operation", "back ends", "serves", "tested on", "of the limit", "what")
    for row in rows:
        backends = ", ".join(f"{name} ({'/'.join(devices)})" for name, devices in row["backends"].items())
        serves = ", ".join(f"{device}: {backend}" for device, backend in row["serves"].items())
        tested = ["CPU", *(f"{one['gpu']} ({one['cases_passed']}/{one['cases']})" for one in row["measured"])]
        reached = [f"{one['gpu']} {one['fraction']:.0%}" for one in row["measured"] if one["fraction"]]
        table.add_row(
            row["name"], backends, serves, ", ".join(tested), ", ".join(reached) or "not measured", row["summary"]
        )
    stdout().print(table)


def _facts(op: Operation) -> dict[str, Any]:
    from octavo.kernels.gpu.lab.measured import measured
    from octavo.kernels.operation import runs_on

    return {
        "name": op.name,
        "schema": op.schema,
        "summary": op.summary,
        "backends": {name: list(runs_on(name)) for name in op.backends},
        "serves": dict(op.by_device),
        "has_gradients": op.backward is not None,
        "measured": [asdict(one) for one in measured(op.name)],
    }


def check(
    name: Name = "",
    gpu: OnGpu = False,
    seed: Annotated[int, typer.Option(help="Of the random inputs; 0 draws one.", min=0)] = 0,
    as_json: AsJson = False,
) -> None:
    """Test every back end against its float64 reference on the test inputs: poisoned outputs, odd shapes, the same bits twice."""
    device, names = _device(gpu), _names(name)
    from octavo.kernels.compare import check_against_reference, inputs_of
    from octavo.kernels.registry import operation

    seed = seed or int.from_bytes(os.urandom(4))
    outcomes = []
    for op in map(operation, names):
        for backend in _backends(op, device):
            found = [
                check_against_reference(op, backend, inputs, seed, device)
                for inputs in inputs_of(op.name)
                if gpu or inputs.small
            ]
            outcomes += found
            if not as_json:
                failed = [one for one in found if not one.passed]
                worst = max((one.error for one in found), default=0.0)
                words = (
                    f"{len(failed)} of {len(found)} FAILED"
                    if failed
                    else f"{len(found)} test inputs, error {worst:.2f}"
                )
                print(f"{op.name:20} {backend:20} {words} of what is allowed", flush=True)
                for one in failed:
                    print(f"  {one}")
    if as_json:
        rows = [asdict(one) | {"passed": one.passed} for one in outcomes]
        print(json.dumps({"device": str(device), "seed": seed, "outcomes": rows}, indent=2))
    elif not all(one.passed for one in outcomes):
        print(f"repeat with --seed {seed}")
    if not all(one.passed for one in outcomes):
        raise typer.Exit(1)


def bench(
    name: Name = "",
    gpu: OnGpu = False,
    tiny: Annotated[bool, typer.Option("--tiny", help="A dry run on tiny shapes: proves nothing about speed.")] = False,
    figure: Annotated[Path | None, typer.Option(help="Roofline, .svg or .png.", metavar="FILE")] = None,
    as_json: AsJson = False,
) -> None:
    """Time every back end beside torch eager, torch.compile and cuBLAS, and beside what this machine can do at most.

    On a CPU the torch back ends are timed, on the shapes that are small enough: these are no GPU figures.
    """
    device, names = _device(gpu), _names(name)
    from octavo.kernels.gpu.lab.benchmark import overhead, run_operation
    from octavo.kernels.gpu.lab.limits import measure_limits

    limits = measure_limits(device) if gpu else measure_limits(device, size=64 if tiny else 1024, copy_bytes=1 << 26)
    if not as_json:
        print(_limit_words(limits))
    rows, dispatch = [], {}
    for one in names:
        for row in run_operation(one, limits, device, tiny):
            rows.append(row)
            if not as_json:
                _print_row(row)
        dispatch[one] = overhead(one, device)
        if not as_json:
            parts = ", ".join(f"{part} {1e6 * seconds:.1f} us" for part, seconds in dispatch[one].items())
            print(f"  to issue one small call: {parts}", flush=True)
    if figure is not None:
        from octavo.kernels.gpu.lab.roofline import draw

        draw(rows, limits, figure, "dry run" if tiny else "" if gpu else "no GPU figures")
    if as_json:
        whole = {"limits": asdict(limits), "rows": [row.to_dict() for row in rows], "dispatch_s": dispatch}
        print(json.dumps(whole, indent=2))


def _limit_words(limits: Any) -> str:
    rates = [
        f"{name} {rate / 1e12:.3g} TFLOP/s"
        for name in ("fp32", "bf16", "fp8", "int8")
        if (rate := getattr(limits, name))
    ]
    where = "the CPU's back ends: no GPU figures" if limits.device == "cpu" else limits.device
    return f"{where}; this machine's limits, on random data: copy {limits.copy / 1e9:.4g} GB/s, {', '.join(rates)}"


def _print_row(row: Row) -> None:
    print(f"{row.operation}: {row.benchmark}")
    own = {f"{name} (serves)" if name == row.serves else name: one for name, one in row.backends.items()}
    for name, one in (own | {f"vs {name}": one for name, one in row.baselines.items()}).items():
        t = one.timing
        rate = (
            f"{one.operations_per_s / 1e12:8.2f} TFLOP/s"
            if row.limit != "copy"
            else f"{one.bytes_per_s / 1e9:8.1f} GB/s   "
        )
        spread = f"({1e6 * t.low_s:.1f} .. {1e6 * t.high_s:.1f})"
        print(f"  {name:28} {1e6 * t.median_s:10.1f} us {spread:24} {rate} {one.fraction:6.1%} of the limit")
    for goal in row.goals:
        words = "not measured" if goal.reached is None else f"{goal.reached:.2f}"
        print(f"  goal: {goal.at_least:g} x {goal.baseline}: {words}")
    for name, words in row.errors.items():
        print(f"  {name}: {words}")


def explain(
    name: Annotated[str, typer.Argument(help="An operation with optimisation steps, e.g. matmul.", metavar="OP")],
    as_json: AsJson = False,
) -> None:
    """The way to the fast kernel: what each step changes, what should follow, what the compiler made of it, what was measured."""
    require("torch", NEEDED)
    _names(name)
    from octavo.kernels.gpu.lab.benchmark import steps_of
    from octavo.kernels.gpu.lab.measured import compiled, measured_steps
    from octavo.kernels.registry import NAMES, operation

    steps = steps_of(name)
    if not steps:
        have = ", ".join(one for one in NAMES if steps_of(one))
        raise ConfigError(f"{name} has no optimisation steps; operations with them: {have or 'none'}")
    rows = [
        asdict(step) | {"compiled": compiled(name, step), "measured": measured_steps(name, step.backend)}
        for step in steps
    ]
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    print(f"{name}: {operation(name).summary}\n")
    for number, row in enumerate(rows, 1):
        print(f"{number}. {row['name']}  (back end {row['backend']})")
        print(f"   change:     {row['change']}\n   prediction: {row['prediction']}")
        for words in row["compiled"]:
            print(f"   compiled:   {words}")
        for words in row["measured"] or ["not measured"]:
            print(f"   measured:   {words}")
        print()


def tune(name: Name = "", as_json: AsJson = False) -> None:
    """Try every candidate tile size on this GPU; what is faster than the default is kept in the cache folder."""
    device, names = _device(True), _names(name)
    from octavo.kernels.gpu.lab.tune import save
    from octavo.kernels.gpu.lab.tune import tune as search

    results = {}
    for one in names:
        found = list(search(one, device))
        results[one] = [asdict(result) for result in found]
        if found:
            file = save(one, found, device)
        if not as_json:
            for result in found:
                words = f"{result.speedup:.2f} x the default" if result.config else "the default is best"
                print(f"{one:20} {result.benchmark:40} {words} of {result.num_candidates}; kept in {file}")
    if as_json:
        print(json.dumps(results, indent=2))


def _device(gpu: bool) -> torch.device:
    """Triton reads whether it is to interpret when it is first imported."""
    require("torch", NEEDED)
    if gpu:
        require("triton", "the operations on a GPU need")
    else:
        from octavo.kernels.gpu.interpreter import use_interpreter

        use_interpreter()
    import torch

    if gpu and not torch.cuda.is_available():
        raise ConfigError(
            f"torch {torch.__version__} finds no NVIDIA GPU here; without --gpu the CPU's back ends are run"
        )
    return torch.device("cuda" if gpu else "cpu")


def _names(name: str) -> Sequence[str]:
    from octavo.kernels.registry import NAMES

    if name and name not in NAMES:
        raise ConfigError(f"unknown operation {name!r}; known: {', '.join(sorted(NAMES))}")
    return (name,) if name else NAMES


def _backends(op: Operation, device: torch.device) -> Iterator[str]:
    """Those that run here: Triton's on a CPU too, in its interpreter, if it is installed."""
    from octavo.kernels.operation import runs_on

    for name in op.backends:
        interpreted = (
            name.startswith("triton") and device.type == "cpu" and importlib.util.find_spec("triton") is not None
        )
        if device.type in runs_on(name) or interpreted:
            yield name


def _origin(device: torch.device) -> dict[str, str]:
    """What a page of results has to say of itself."""
    import sys

    import torch

    from octavo.bench.provenance import origin

    found = origin(sys.argv[1:])
    on_gpu = device.type == "cuda"
    machine = (
        torch.cuda.get_device_name(device)
        if on_gpu
        else f"{found['machine']['cpu']}, {torch.get_num_threads()} threads"
    )
    return {key: found[key] for key in ("command", "commit", "created")} | {
        "machine": machine,
        "torch": torch.__version__,
    }


def _table(*headings: str) -> Any:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in headings:
        table.add_column(heading, overflow="fold", no_wrap=heading == "operation")
    return table


def compile_study(
    gpu: OnGpu = False,
    layers: Annotated[int, typer.Option(help="Of Llama-3.1-8B's 32.", min=1, max=32)] = 32,
    tiny: Annotated[bool, typer.Option("--tiny", help="A dry run on a tiny model.")] = False,
    batches: Annotated[str, typer.Option(help="Batch sizes, with commas between them.")] = "1,16",
    markdown: Annotated[Path | None, typer.Option(help="Write the page.", metavar="FILE")] = None,
    as_json: AsJson = False,
) -> None:
    """Llama-3.1-8B shapes (random weights) under every torch.compile mode: breaks, compile time, gain, memory.

    On a CPU in float32, where all 32 layers take 32 GB: name fewer, or --tiny for a dry run.
    """
    if not (gpu or tiny or layers <= MOST_LAYERS_ON_A_CPU):
        raise ConfigError(
            f"{layers} layers need a GPU: add --gpu, or --layers {MOST_LAYERS_ON_A_CPU} at most, or --tiny for a dry run"
        )
    device = _device(gpu)
    from octavo.kernels.gpu.lab import compile_study as studying
    from octavo.kernels.gpu.lab.plain_llama import LLAMA_3_1_8B, TINY, PlainLlama

    try:
        sizes = [int(one) for one in batches.split(",")]
    except ValueError:
        raise ConfigError(f"batches = {batches}; numbers with commas between them are expected, e.g. 1,16") from None
    shape = TINY if tiny else LLAMA_3_1_8B.with_layers(layers)
    subject = PlainLlama.subject(shape, device)
    results = []
    for result in studying.study(subject, sizes, device, ("default",) if tiny else studying.MODES):
        results.append(result)
        if not as_json:
            print(studying.words(result), flush=True)
    rows = [studying.row(result) for result in results]
    if markdown is not None:
        markdown.write_text(studying.page(_origin(device), rows), encoding="utf-8")
    if as_json:
        print(json.dumps(rows, indent=2))
