"""Every staircase of a network on one self-contained page, with the cause of each edge."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from ..core.artifact import write_text_atomically
from .canvas import figure_svg
from .page import StaircaseView
from .plots import plot_staircase
from .template import markup, render


def render_staircase_page(model: str, views: Sequence[StaircaseView], *, facts: Mapping[str, object]) -> str:
    """The page as HTML text; `facts` says what the latencies hold for. Every name and cause in it is escaped."""
    drawn = [
        markup(
            figure_svg(
                plot_staircase(view.staircase, marks=view.marks),
                name=f"staircase-{index}",
                alt=f"Latency against width of {view.name}",
            )
        )
        for index, view in enumerate(views)
    ]
    return render("staircases.html", model=model, views=list(zip(views, drawn, strict=True)), facts=facts)


def write_staircase_page(
    model: str, views: Sequence[StaircaseView], path: str | os.PathLike[str], *, facts: Mapping[str, object]
) -> None:
    """Write the page whole or not at all."""
    write_text_atomically(path, render_staircase_page(model, views, facts=facts))
