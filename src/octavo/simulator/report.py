"""The comparison as one HTML file that needs nothing else: a table and figures as inline SVG."""

from __future__ import annotations

import html
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from octavo.errors import ConfigError
from octavo.simulator.replay import Replay

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMNS = ("output_tokens_per_s", "goodput_rps", "max_wait_exceeded", "fairness_gap_tokens", "jain", "preemptions")
CLASS_COLUMNS = ("ttft_p50_s", "ttft_p99_s", "tpot_p99_s", "violations", "requests")
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums; }
th, td { border-bottom: 1px solid #ddd; padding: .25rem .7rem; text-align: right; }
th:first-child, td:first-child { text-align: left; }
svg { max-width: 100%; height: auto; }
"""


def render(report: Mapping[str, Any], replays: Sequence[Replay]) -> str:
    """``report``: what ``--json`` writes. Raises ``ConfigError`` without matplotlib."""
    policies = report["policies"]
    setup = "; ".join(f"{key} {_text(value)}" for key, value in report["setup"].items())
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8><title>Scheduling policies compared</title>",
        f"<style>{STYLE}</style><h1>Scheduling policies compared</h1><p>{html.escape(setup)}</p>",
        _table("policy", COLUMNS, policies),
        _svg(_goodput_figure(policies)),
        "<p>Requests that got everything their class promises, per second.</p>",
    ]
    for name in next(iter(policies.values()))["classes"]:
        rows = {policy: figures["classes"].get(name, {}) for policy, figures in policies.items()}
        parts += [f"<h2>{html.escape(name)}</h2>", _table("policy", CLASS_COLUMNS, rows)]
        parts.append(_svg(_ttft_figure(name, replays)))
    parts.append("<p>Share of requests whose first token came within the time. Dashed: the promise.</p>")
    return "\n".join(parts)


def _table(corner: str, columns: Sequence[str], rows: Mapping[str, Mapping[str, Any]]) -> str:
    head = "".join(f"<th>{html.escape(one)}</th>" for one in (corner, *columns))
    body = "".join(
        f"<tr><td>{html.escape(name)}</td>" + "".join(f"<td>{_text(row.get(one))}</td>" for one in columns) + "</tr>"
        for name, row in rows.items()
    )
    return f"<table><tr>{head}</tr>{body}</table>"


def _text(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else html.escape(str(value))


def _figure(width: float, height: float) -> Figure:
    try:
        from matplotlib.figure import Figure
    except ImportError as missing:
        raise ConfigError(
            "figures need matplotlib: pip install 'octavo[bench]', or leave out --html", param="html"
        ) from missing
    return Figure(figsize=(width, height), layout="constrained")


def _goodput_figure(policies: Mapping[str, Any]) -> Figure:
    figure = _figure(8.0, 0.5 + 0.35 * len(policies))
    axes = figure.subplots()
    names = list(policies)[::-1]
    bars = axes.barh(names, [policies[name]["goodput_rps"] for name in names], color="#4878a8")
    axes.bar_label(bars, fmt="%.2f", padding=3)
    axes.set_xlabel("goodput, requests/s")
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def _ttft_figure(name: str, replays: Sequence[Replay]) -> Figure:
    figure = _figure(8.0, 3.2)
    axes = figure.subplots()
    for done in replays:
        own = [one for one in done.ended if one.promise.name == name and one.timings.ttft_s is not None]
        times = sorted(one.timings.ttft_s or 0.0 for one in own)
        axes.step(times, [(i + 1) / len(times) for i in range(len(times))], where="post", label=done.policy)
        if own and own[0].promise.ttft_s is not None and done is replays[0]:
            axes.axvline(own[0].promise.ttft_s, color="#888888", linestyle="--", linewidth=1)
    axes.set_xscale("log")
    axes.set_xlabel("time to first token, s")
    axes.set_ylabel("share of requests")
    axes.legend(frameon=False, fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def _svg(figure: Figure) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]
