"""Base of all plots: name, caption, pure drawing function; rendering as SVG or PNG."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from matplotlib import rc_context
from matplotlib.figure import Figure

from octavo.bench.plots.style import RC

S = TypeVar("S")
FORMATS = ("svg", "png")
PNG_DPI = 200
NO_METADATA = {"svg": dict.fromkeys(("Creator", "Date", "Format", "Type")), "png": {"Software": None}}


@dataclass(frozen=True)
class Plot(Generic[S]):
    """``draw`` returns None where its subject has nothing to show in it."""

    name: str  # of the file, without its ending
    caption: str  # how to read it
    draw: Callable[[S], Figure | None]

    def __call__(self, subject: S) -> Figure | None:
        """Draw in the house's style."""
        with rc_context(RC):
            return self.draw(subject)


def alone(kind: Plot[Sequence[S]]) -> Plot[S]:
    """A plot of several, of one."""
    return Plot(kind.name, kind.caption, lambda one: kind.draw((one,)))


def encode(figure: Figure, form: str) -> bytes:
    """The bytes of an SVG or PNG file: the same for the same plot, without dates. Text is drawn as outlines, so that it
    looks alike wherever it is opened."""
    target = io.BytesIO()
    with rc_context(RC), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # names come from servers; a box says as much
        figure.savefig(target, format=form, dpi=PNG_DPI if form == "png" else "figure", metadata=NO_METADATA[form])
    return target.getvalue()


def inline_svg(svg: bytes, prefix: str) -> str:
    """An SVG as part of an HTML page: no prolog, no comments, and ids that no other plot of the page has."""
    text = svg.decode()
    text = re.sub(r"<!--.*?-->\s*", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = text.replace("xlink:href=", "href=")
    text = re.sub(r'\s*xmlns(?::xlink)?="[^"]*"', "", text)
    text = re.sub(r'\bid="', f'id="{prefix}-', text)
    text = re.sub(r'\bhref="#', f'href="#{prefix}-', text)
    text = re.sub(r"url\(#", f"url(#{prefix}-", text)
    return re.sub(r'<svg\b[^>]*?viewBox="([^"]*)"[^>]*>', r'<svg viewBox="\1" aria-hidden="true">', text, count=1)
