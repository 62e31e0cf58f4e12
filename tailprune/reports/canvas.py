"""How does a plot become a file, or SVG text that follows the page's light or dark theme?"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.artifact import write_text_atomically
from ..core.errors import FormatError, InvalidShape, MissingDependency

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Middle tones, readable on white and on black. In SVG each is a CSS variable with this value as its fallback.
INK, FAINT, BAND = "#7d8590", "#9aa1ab", "#8a929c"
OURS, HOST, RIVAL, DENSE = "#1a9e75", "#e0762c", "#6b83d6", "#a46fc2"
ROLE_COLOR = {"ours": OURS, "host": HOST, "rival": RIVAL, "dense": DENSE}
VARIABLES = {INK: "ink", FAINT: "faint", BAND: "band", OURS: "ours", HOST: "host", RIVAL: "rival", DENSE: "dense"}
#: Points, as wide as a phone's screen at 1:1, so that labels stay readable there.
WIDTH_IN, HEIGHT_IN = 4.6, 3.1

STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "tailprune",  # equal data gives equal files
    "text.parse_math": False,  # a $ in a layer's name is no formula
    "font.family": "sans-serif",
    "font.size": 9.5,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": FAINT,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": FAINT,
    "grid.alpha": 0.25,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
}


@contextmanager
def drawing(*, height_in: float = HEIGHT_IN, width_in: float = WIDTH_IN) -> Iterator[tuple[Figure, Axes]]:
    """A figure with one pair of axes in our style; pyplot and its global state are never touched."""
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependency("Plots need matplotlib; pip install matplotlib.") from error
    with rc_context(STYLE):
        figure = Figure(figsize=(width_in, height_in), layout="constrained")
        yield figure, figure.subplots()


def figure_svg(figure: Figure, *, name: str = "plot", alt: str = "") -> str:
    """An `<svg>` element for a page: no declaration, no foreign address, colours as CSS variables, ids under `name`."""
    from matplotlib import rc_context

    buffer = io.StringIO()
    with rc_context(STYLE):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Type": None, "Format": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", svg, flags=re.DOTALL)
    prefix = re.sub(r"[^A-Za-z0-9_-]", "-", name)
    svg = re.sub(r'\b(id="|xlink:href="#|url\(#)', rf"\g<1>{prefix}-", svg)
    svg = re.sub(r' xmlns(:xlink)?="[^"]*"', "", svg)
    for color, variable in VARIABLES.items():
        svg = re.sub(rf"(fill|stroke): {color}\b", rf"\1: var(--{variable}, {color})", svg)
    svg = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font-size: \1; font-family: inherit", svg)
    svg = re.sub(r'<svg([^>]*?) width="[^"]*"', r"<svg\1", svg)
    svg = re.sub(r'<svg([^>]*?) height="[^"]*"', r"<svg\1", svg, count=1)
    return svg.replace("<svg", f'<svg role="img" aria-label="{escape(alt or name)}"', 1).strip()


def save_figure(figure: Figure, path: str | os.PathLike[str], *, alt: str = "") -> Path:
    """Write SVG or PNG, by the path's suffix, with a transparent ground."""
    target = Path(path)
    if target.suffix.lower() == ".svg":
        svg = figure_svg(figure, name=target.stem, alt=alt)
        names = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
        write_text_atomically(target, svg.replace("<svg", f'<svg {names} font-family="sans-serif"', 1) + "\n")
    elif target.suffix.lower() == ".png":
        from matplotlib import rc_context

        try:
            with rc_context(STYLE):
                figure.savefig(target, format="png", dpi=200)
        except OSError as error:
            raise FormatError(f"Cannot write {target}: {error.strerror or error}.") from error
    else:
        raise InvalidShape(f"A plot is saved as .svg or .png, got {target.name!r}.")
    return target
