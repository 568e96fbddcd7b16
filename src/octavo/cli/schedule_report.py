"""HTML report of ``octavo schedule compare``: tables, goodput, TTFT distributions, SLO attainment over load."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from octavo.bench.plots import Plot
from octavo.bench.plots.style import GREY, fit_legend, look, mark_limit, new_figure, plain_axis
from octavo.bench.report.page import render
from octavo.bench.report.parts import Pen, Section, Table
from octavo.simulator.replay import Replay

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMNS = ("output_tokens_per_s", "goodput_rps", "max_wait_exceeded", "fairness_gap_tokens", "jain", "preemptions")
CLASS_COLUMNS = ("ttft_p50_s", "ttft_p99_s", "tpot_p99_s", "violations", "requests")
FOOTNOTE = "A simulation: the engine's own scheduler and KV cache on a virtual clock, over a model of step times."


@dataclass(frozen=True)
class _Times:
    """Times to the first token of one class, by policy."""

    name: str
    slo_s: float | None
    by_policy: Mapping[str, Sequence[float]]


def of_one_load(report: Mapping[str, Any], replays: Sequence[Replay]) -> str:
    """``report``: what ``--json`` writes."""
    policies, pen = report["policies"], Pen()
    goodput: Plot[Mapping[str, Any]] = Plot("goodput", "Requests whose SLO was attained, per second.", _draw_goodput)
    sections = [
        Section(
            "policies",
            "Scheduling policies compared",
            facts=_facts(report["setup"]),
            tables=(_table("", COLUMNS, policies),),
            pictures=pen.draw("policies", (goodput,), policies),
        )
    ]
    caption = "Share of requests whose first token came within the time; the dashed line is the objective."
    kind: Plot[_Times] = Plot("ttft", caption, _draw_times)
    for name in next(iter(policies.values()))["classes"]:
        rows = {policy: figures["classes"].get(name, {}) for policy, figures in policies.items()}
        table = _table("", CLASS_COLUMNS, rows)
        pictures = pen.draw(f"class-{name}", (kind,), _times(name, replays))
        sections.append(Section(f"class-{name}", f"Class {name}", tables=(table,), pictures=pictures))
    return render(sections, "octavo schedule compare", FOOTNOTE)


def of_loads(report: Mapping[str, Any]) -> str:
    """``report``: what ``--json`` writes with ``--loads``."""
    loads, policies = report["loads"], report["policies"]
    headings = ("policy", "knee load", "knee requests/s", *(f"at load {load:g}" for load in loads))
    rows = [
        (name, _text(found["knee_load"]), _text(found["knee_rps"]), *(f"{one:.1%}" for one in found["attainment"]))
        for name, found in policies.items()
    ]
    rows.append(("upper bound", "", "", *(f"{one:.1%}" for one in report["max_attainment"])))
    caption = "SLO attainment, mean over seeds. Grey: above the upper bound of any schedule. Dashed: the attainment of the knee."
    kind: Plot[Mapping[str, Any]] = Plot("attainment", caption, _draw_attainment)
    section = Section(
        "loads",
        "Scheduling policies over loads",
        facts=_facts(report["setup"]),
        tables=(Table("", headings, rows),),
        notes=(
            f"The knee is the highest load up to which SLO attainment is {report['setup']['target_attainment']:.0%}.",
        ),
        pictures=Pen().draw("loads", (kind,), report),
    )
    return render([section], "octavo schedule compare", FOOTNOTE)


def _facts(setup: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(key.replace("_", " "), _text(value)) for key, value in setup.items()]


def _table(title: str, columns: Sequence[str], rows: Mapping[str, Mapping[str, Any]]) -> Table:
    found = [(name, *(_text(row.get(one)) for one in columns)) for name, row in rows.items()]
    return Table(title, ("policy", *(one.replace("_", " ") for one in columns)), found)


def _text(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _times(name: str, replays: Sequence[Replay]) -> _Times:
    own = {done.policy: [one for one in done.ended if one.service_class.name == name] for done in replays}
    slo_s = next((one.service_class.ttft_s for ended in own.values() for one in ended), None)
    times = {policy: sorted(one.timings.ttft_s or 0.0 for one in ended) for policy, ended in own.items()}
    return _Times(name, slo_s, times)


def _draw_goodput(policies: Mapping[str, Any]) -> Figure:
    figure = new_figure(0.8 + 0.3 * len(policies), "Goodput")
    axes = figure.subplots()
    bars = axes.barh(list(policies), [one["goodput_rps"] for one in policies.values()], color=look(0).colour)
    axes.bar_label(bars, fmt="%.2f", padding=3)
    axes.invert_yaxis()
    axes.set_xlabel("goodput, requests/s")
    return figure


def _draw_times(times: _Times) -> Figure | None:
    if not any(times.by_policy.values()):
        return None
    figure = new_figure(3.0, f"Time to the first token: {times.name}")
    axes = figure.subplots()
    for i, (policy, found) in enumerate(times.by_policy.items()):
        shares = [(place + 1) / len(found) for place in range(len(found))]
        axes.step(found, shares, where="post", label=policy, **look(i).kwargs())
    mark_limit(axes, times.slo_s, vertical=True)
    plain_axis(axes.xaxis, [one for found in times.by_policy.values() for one in found])
    axes.set(xlabel="time to first token, s", ylabel="share of requests")
    fit_legend(figure, axes.get_legend_handles_labels()[0])
    return figure


def _draw_attainment(report: Mapping[str, Any]) -> Figure:
    figure, loads = new_figure(3.4, "SLO attainment"), report["loads"]
    axes = figure.subplots()
    axes.fill_between(loads, report["max_attainment"], 1.0, color=GREY, alpha=0.25, linewidth=0)
    for i, (policy, found) in enumerate(report["policies"].items()):
        axes.plot(loads, found["attainment"], label=policy, marker=look(i).marker, markersize=4, **look(i).kwargs())
    mark_limit(axes, report["setup"]["target_attainment"], vertical=False)
    axes.set(xlabel="load, of what the machine can do", ylabel="SLO attainment")
    fit_legend(figure, axes.get_legend_handles_labels()[0])
    return figure
