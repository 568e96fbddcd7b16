"""Study of ``torch.compile`` on a whole model: speed, compile time, memory and graph breaks of every mode.

Compile time is what the first calls take beyond later ones, with nothing in the compiler's cache: what a machine pays once. It
has paid after ``breakeven_calls`` calls of this shape.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch

from octavo.kernels.gpu.lab.timing import Timing, measure, one_line, synchronize

MODES = ("default", "reduce-overhead", "max-autotune-no-cudagraphs", "max-autotune")
HEADINGS = ("what", "batch", "mode", "eager ms", "compiled ms", "faster", "compiled in s", "pays after calls", "peak GB",
            "graphs", "breaks")  # fmt: skip
FIRST_CALLS = 3  # compilation, then the warm-up and the capture of a CUDA graph


@dataclass(frozen=True, slots=True)
class Subject:
    """``prepare(batch)`` gives the function to compile and its arguments. The function may be called again and again."""

    name: str
    prepare: Callable[[int], tuple[Callable[..., Any], tuple[Any, ...]]]


@dataclass(frozen=True, slots=True)
class Studied:
    """One mode at one batch size beside the same function uncompiled. ``problem``: why there are no times."""

    subject: str
    mode: str
    batch: int
    eager: Timing | None = None
    compiled: Timing | None = None
    compile_s: float = 0.0
    graphs: int = 0
    breaks: tuple[str, ...] = ()  # the cause of each graph break
    eager_peak_bytes: int = 0
    peak_bytes: int = 0
    problem: str = ""

    @property
    def speedup(self) -> float:
        """Of a compiled call; 0 if it was not timed."""
        return self.eager.median_s / self.compiled.median_s if self.eager and self.compiled else 0.0

    @property
    def breakeven_calls(self) -> float:
        """After how many calls compilation has paid; infinite where it gains nothing."""
        saved_s = self.eager.median_s - self.compiled.median_s if self.eager and self.compiled else 0.0
        return self.compile_s / saved_s if saved_s > 0 else float("inf")


def study(
    subject: Subject, batches: Sequence[int], device: torch.device, modes: Sequence[str] = MODES, budget_s: float = 2.0
) -> Iterator[Studied]:
    """One result for each batch size and mode; a mode that fails says why, and the others go on."""
    from torch._inductor.utils import fresh_cache  # seconds to import

    for batch in batches:
        for mode in modes:
            try:
                with fresh_cache():
                    yield _study(subject, batch, mode, device, budget_s)
            except Exception as error:
                yield Studied(subject.name, mode, batch, problem=one_line(error))
            torch.compiler.reset()
            gc.collect()
            if device.type == "cuda":
                torch.cuda.empty_cache()


@torch.no_grad()
def _study(subject: Subject, batch: int, mode: str, device: torch.device, budget_s: float) -> Studied:
    function, arguments = subject.prepare(batch)
    torch.compiler.reset()
    graphs, breaks = graph_breaks(function, arguments)
    torch.compiler.reset()
    eager_peak = _peak(partial(function, *arguments), device)
    compiled = torch.compile(function, mode=None if mode == "default" else mode)
    started = time.perf_counter()
    peak = _peak(lambda: [compiled(*arguments) for _ in range(FIRST_CALLS)], device)
    first_s = time.perf_counter() - started
    calls = {"eager": partial(function, *arguments), "compiled": partial(compiled, *arguments)}
    timed = measure(calls, device, budget_s)
    if timed.errors:
        return Studied(subject.name, mode, batch, graphs=graphs, breaks=breaks, problem=str(dict(timed.errors)))
    return Studied(
        subject.name,
        mode,
        batch,
        timed.times["eager"],
        timed.times["compiled"],
        max(0.0, first_s - FIRST_CALLS * timed.times["compiled"].median_s),
        graphs,
        breaks,
        eager_peak,
        peak,
    )


def graph_breaks(function: Callable[..., Any], arguments: Sequence[Any]) -> tuple[int, tuple[str, ...]]:
    """How many graphs Dynamo makes of a call, and why it had to break: cause, file and line of the user's code."""
    found = torch._dynamo.explain(function)(*arguments)
    causes = []
    for one in found.break_reasons:
        frame = one.user_stack[-1] if one.user_stack else None
        where = f" ({frame.filename.rpartition('/')[2]}:{frame.lineno})" if frame else ""
        causes.append(" ".join(one.reason.split())[:200] + where)
    return found.graph_count, tuple(causes)


def _peak(call: Callable[[], Any], device: torch.device) -> int:
    """Bytes that were allocated at most; 0 on a CPU, where torch does not count."""
    if device.type != "cuda":
        call()
        return 0
    synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    call()
    synchronize(device)
    return torch.cuda.max_memory_allocated(device)


def words(one: Studied) -> str:
    """A line for a person."""
    start = f"{one.subject}, batch {one.batch}, {one.mode}: "
    if one.eager is None or one.compiled is None:
        return f"{start}{one.problem}"
    times = f"{1e3 * one.eager.median_s:.2f} ms -> {1e3 * one.compiled.median_s:.2f} ms, {one.speedup:.2f}x"
    cost = f"compiled in {one.compile_s:.1f} s, pays after {one.breakeven_calls:.0f} calls"
    memory = f", peak {one.eager_peak_bytes / 1e9:.1f} -> {one.peak_bytes / 1e9:.1f} GB" if one.peak_bytes else ""
    broken = f"; {len(one.breaks)} graph breaks: " + "; ".join(dict.fromkeys(one.breaks)) if one.breaks else ""
    return f"{start}{times}; {cost}{memory}; {one.graphs} graphs{broken}"


def row(one: Studied) -> dict[str, Any]:
    """For JSON; ``breakeven_calls`` is None where compilation gains nothing."""
    pays = one.breakeven_calls if one.breakeven_calls < float("inf") else None
    return asdict(one) | {"speedup": one.speedup, "breakeven_calls": pays}


def page(facts: Mapping[str, str], rows: Iterable[Mapping[str, Any]]) -> str:
    """Markdown: where and how it was measured, a table over ``row``s, then each graph break with the modes that have it."""
    lines = [
        "# What torch.compile gains, and what it costs",
        "",
        *(f"- {name}: {value}" for name, value in facts.items()),
        "",
    ]
    lines += ["| " + " | ".join(HEADINGS) + " |", "|---" * len(HEADINGS) + "|"]
    breaks: dict[str, list[str]] = {}
    for one in rows:
        for cause in one["breaks"]:
            breaks.setdefault(cause, []).append(f"{one['subject']}, {one['mode']}, batch {one['batch']}")
        lines.append("| " + " | ".join(_cells(one)) + " |")
    lines += ["", "Medians, with the 10 % and 90 % quantiles; eager and compiled calls in turns.", ""]
    broken = [f"- {cause}: {len(where)} times ({where[0]} ...)" for cause, where in breaks.items()]
    lines += broken or ["No graph breaks."]
    return "\n".join(lines) + "\n"


def _cells(one: Mapping[str, Any]) -> tuple[str, ...]:
    where = one["subject"], str(one["batch"]), one["mode"]
    graphs = str(one["graphs"]), str(len(one["breaks"]))
    if one["problem"]:
        return (*where, one["problem"].replace("|", "/"), *[""] * (len(HEADINGS) - 6), *graphs)
    pays, peak = one["breakeven_calls"], one["peak_bytes"]
    return (
        *where,
        _milliseconds(one["eager"]),
        _milliseconds(one["compiled"]),
        f"{one['speedup']:.2f} x",
        f"{one['compile_s']:.1f}",
        "never" if pays is None else f"{pays:,.0f}",
        f"{one['eager_peak_bytes'] / 1e9:.1f} -> {peak / 1e9:.1f}" if peak else "not counted",
        *graphs,
    )


def _milliseconds(timing: Mapping[str, float]) -> str:
    return f"{1e3 * timing['median_s']:.2f} ({1e3 * timing['low_s']:.2f}-{1e3 * timing['high_s']:.2f})"
