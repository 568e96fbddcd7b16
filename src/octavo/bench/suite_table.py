"""Tables of suites and of comparisons of servers: for the terminal (rich), for a page (Markdown). Same cells in both."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from rich.table import Table
from rich.text import Text

from octavo.bench.calibration import Calibration
from octavo.bench.limits import ModelFacts
from octavo.bench.peers import PeerRatio, PeersResult
from octavo.bench.scenario_metrics import Spread
from octavo.bench.suite import ScenarioResult, SuiteResult
from octavo.bench.throughput import Figure
from octavo.bench.types import Interval

NOTHING = "-"


@dataclass(frozen=True, slots=True)
class Grid:
    """Headings and rows of text."""

    headings: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]

    def rich(self, title: str = "") -> Table:
        table = Table(title=title or None, box=None, pad_edge=False, header_style="bold", title_justify="left")
        for place, heading in enumerate(self.headings):
            table.add_column(heading, justify="left" if place < 2 else "right", no_wrap=place < 2)
        for row in self.rows:
            table.add_row(*(Text(cell) for cell in row))
        return table

    def markdown(self) -> str:
        lines = [
            self.headings,
            tuple("---" if place < 2 else "---:" for place in range(len(self.headings))),
            *self.rows,
        ]
        return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def suite_grid(rows: Sequence[ScenarioResult], http_over_offline: dict[str, Spread]) -> Grid:
    """One line a row and target; every figure as median (lowest..highest) over the repetitions."""
    headings = (
        "row",
        "target",
        "output tok/s",
        "decode tok/s",
        "TTFT ms",
        "TPOT ms",
        "of the limit",
        "decode, of its limit",
        "http / offline",
        "failed",
    )
    lines = []
    for row in rows:
        ratio = http_over_offline.get(row.row) if row.target == "http" else None
        lines.append(
            (
                row.row,
                row.target,
                *_figures(row),
                spread(row.fraction, 100, "%"),
                spread(row.decode_fraction, 100, "%"),
                spread(ratio),
                str(row.num_failed),
            )
        )
    return Grid(headings, lines)


def peers_grid(result: PeersResult) -> Grid:
    """Servers side by side: all of one row together, the first server first."""
    headings = (
        "row",
        "server",
        "output tok/s",
        "decode tok/s",
        "TTFT ms",
        "TPOT ms",
        "ratio [95 %]",
        "failed",
    )
    ratios = {(one.row, one.peer): one for one in result.ratios if one.metric == "output_tokens_per_s"}
    order = {peer.name: place for place, peer in enumerate(result.peers)}
    names = list(dict.fromkeys(row.row for row in result.rows))
    lines = [
        (
            row.row,
            row.target,
            *_figures(row),
            _ratio(ratios.get((row.row, row.target))),
            str(row.num_failed),
        )
        for row in sorted(result.rows, key=lambda row: (names.index(row.row), order[row.target]))
    ]
    return Grid(headings, lines)


def servers_grid(result: PeersResult) -> Grid:
    """Who was compared, and what each can and cannot do."""
    headings = ("server", "model", "ready s", "peak memory MiB", "idle cores", "prompts, output lengths", "state")
    lines = [
        (
            peer.name,
            peer.abilities.model.rsplit("/", 1)[-1]
            if peer.abilities
            else NOTHING,  # a page is no place for somebody's folders
            NOTHING if peer.ready_s is None else f"{peer.ready_s:.1f}",
            NOTHING if peer.peak_rss_bytes is None else f"{peer.peak_rss_bytes / 2**20:.0f}",
            NOTHING if peer.idle_cores is None else f"{peer.idle_cores:.2f}",
            peer.abilities.describe() if peer.abilities else NOTHING,
            f"gone: {peer.dead}" if peer.dead else "answered to the end",
        )
        for peer in result.peers
    ]
    return Grid(headings, lines)


def limits_lines(rows: Sequence[ScenarioResult]) -> list[str]:
    """The limit of each row in words, as of its last repetition: how the fraction was made."""
    found = {row.row: f"{row.row}: {row.formula} (bound by {row.bound_by})" for row in rows if row.formula}
    return list(found.values())


def notes_lines(rows: Sequence[ScenarioResult]) -> list[str]:
    return [f"{row.row}, {row.target}: {note}" for row in rows for note in row.notes]


def machine_line(calibrations: Sequence[Calibration]) -> str:
    """What the calibrations found: median of their best figures (lowest..highest)."""

    def over(figures: Sequence[Figure | None]) -> str:
        return spread(Spread.of([figure.best if figure else None for figure in figures]))

    memory = over([one.memory_gb_per_s for one in calibrations])
    f32, bf16 = over([one.f32_gflops for one in calibrations]), over([one.bf16_gflops for one in calibrations])
    int8 = over([one.int8_gflops for one in calibrations])
    threads = calibrations[0].num_threads if calibrations else 0
    line = (
        f"{len(calibrations)} calibrations, {threads} threads: memory read {memory} GB/s; "
        f"f32 {f32}, bf16 {bf16} GFLOP/s; int8 {int8} GOP/s"
    )
    return "; ".join(part for part in (line, _stand_ins(calibrations)) if part)


def model_line(facts: ModelFacts | None) -> str:
    """What the limits assume of the model."""
    if facts is None:
        return "Model unknown: no limits."
    size = f"{facts.weight_bytes / 1e6:.1f} MB of weights read by a step (by {facts.weights_by})"
    return f"{facts.name}: {size}, {facts.kv_bytes_per_token} KV bytes a token, products in {facts.arithmetic}"


def _stand_ins(calibrations: Sequence[Calibration]) -> str:
    """Which arithmetic another one is faster than here, in most calibrations; empty where each is fastest itself."""
    found = []
    for name, figures in (("bfloat16", "bf16_gflops"), ("int8", "int8_gflops")):
        others = [one.fastest(name) for one in calibrations if getattr(one, figures) is not None]
        instead = Counter(other[0] for other in others if other and other[0] != name).most_common(1)
        if instead and instead[0][1] * 2 > len(others):
            found.append(f"{instead[0][0]} is faster here than {name}, whose limit is taken from it")
    return "; ".join(found)


def suite_markdown(result: SuiteResult) -> str:
    """The table with what a reader needs to judge it: commit, command, machine, limits, notes."""
    model = result.model.name if result.model else "unknown model"
    head = [
        f"# octavo bench suite {result.suite}: {model}",
        _origin(result.created, result.commit, result.command),
        model_line(result.model),
        machine_line(result.calibrations),
    ]
    body = [suite_grid(result.rows, result.http_over_offline).markdown()]
    return _page([*head, *body], "Limits", limits_lines(result.rows), notes_lines(result.rows) + result.notes)


def peers_markdown(result: PeersResult) -> str:
    names = " ".join(peer.name for peer in result.peers)
    head = [
        f"# octavo bench peers: {names}",
        _origin(result.created, result.commit, result.command),
        machine_line(result.calibrations),
        f"Prompts as {result.form}. Ratios: to the first server, of the same round; Student's interval of the logarithms.",
    ]
    return _page(
        [*head, servers_grid(result).markdown(), peers_grid(result).markdown()],
        "",
        [],
        notes_lines(result.rows) + result.notes,
    )


def _page(parts: list[str], heading: str, lines: list[str], notes: list[str]) -> str:
    if lines:
        parts += [f"## {heading}", "\n".join(f"- {line}" for line in lines)]
    if notes:
        parts += ["## Notes", "\n".join(f"- {note}" for note in notes)]
    return "\n\n".join(parts) + "\n"


def _origin(created: str, commit: str, command: str) -> str:
    return (
        f"{created}, commit {commit or 'unknown'}: `{command}`. Figures are median (lowest..highest) over repetitions."
    )


def _figures(row: ScenarioResult) -> tuple[str, str, str, str]:
    return (
        spread(row.output_tokens_per_s),
        spread(row.decode_tokens_per_s),
        spread(row.ttft_s, 1000),
        spread(row.tpot_s, 1000),
    )


def spread(found: Spread | None, factor: float = 1.0, unit: str = "") -> str:
    """``12.3 (11.9..12.8)``."""
    if found is None:
        return NOTHING
    median, low, high = (number(value * factor) for value in (found.median, found.low, found.high))
    return f"{median}{unit} ({low}..{high})"


def number(value: float) -> str:
    """Three significant digits, never as a power of ten."""
    if value == 0 or abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.3g}"


def _ratio(found: PeerRatio | None) -> str:
    if found is None or found.ratio.value is None:
        return NOTHING
    return f"{number(found.ratio.value)}{_bounds(found.ratio)}"


def _bounds(ratio: Interval) -> str:
    if ratio.low is None or ratio.high is None:
        return ""
    return f" [{number(ratio.low)}, {number(ratio.high)}]"
