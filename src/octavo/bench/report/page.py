"""The report page: all sections in their order, rendered as HTML."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from octavo import __version__
from octavo.bench.plots import inline_svg
from octavo.bench.report.files import Results
from octavo.bench.report.parts import Pen, Picture, Section
from octavo.bench.report.run_section import run_section
from octavo.bench.report.runs_section import comparison_sections, runs_section, sweep_sections
from octavo.bench.report.scenarios_section import peers_section, suite_section

FOOTNOTE = (
    "Every latency counts from the moment a request was due. Intervals are 95 % confidence intervals; failed and timed-out "
    "requests are in no latency."
)
MOST_DRAWN = 12  # runs with plots of their own: more make a page that no browser likes


def sections(results: Results, pen: Pen) -> list[Section]:
    """What concerns all runs first, then each; suites and comparisons of servers last."""
    runs = results.runs
    keys = [f"run-{number}" for number in range(1, len(runs) + 1)]
    found: list[Section] = []
    if len(runs) > 1:
        found = [runs_section(runs, keys, pen), *comparison_sections(runs, pen), *sweep_sections(runs, pen)]
    found += [
        run_section(run, key, pen, folded=len(runs) > 1, drawn=place < MOST_DRAWN)
        for place, (run, key) in enumerate(zip(runs, keys, strict=True))
    ]
    found += [suite_section(one, f"suite-{number}", pen) for number, one in enumerate(results.suites, 1)]
    found += [peers_section(one, f"peers-{number}", pen) for number, one in enumerate(results.peers, 1)]
    return found


def render(found: Sequence[Section], title: str = "octavo bench", footnote: str = FOOTNOTE) -> str:
    """One HTML file: style and plots inside, no scripts, nothing fetched. All text is escaped; only plots, which are ours,
    are not."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(resources.files(__package__).joinpath("page.html").read_text(encoding="utf-8"))
    formulas = {name: text for section in found for name, text in section.formulas.items()}
    num_runs = sum(section.key.startswith("run-") for section in found)
    return template.render(
        sections=found,
        formulas=formulas,
        version=__version__,
        svg=_svg,
        not_drawn=max(0, num_runs - MOST_DRAWN),
        title=title,
        footnote=footnote,
    )


def _svg(picture: Picture) -> Markup:
    """The text in a plot is outlines, so nothing that a server wrote is in it as text."""
    return Markup(inline_svg(picture.files["svg"], picture.key))  # noqa: S704
