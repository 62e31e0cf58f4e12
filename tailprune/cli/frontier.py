"""`plan --frontier`: what every latency buys, as CSV and as a plot, with the rivals beside it."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.artifact import write_text_atomically
from ..core.errors import InvalidShape, MissingLatency, NoPlan
from ..core.plan import WidthPlan
from ..planning import Frontier, fixed_multiple, greedy_plan
from ..reports import FrontierMark, FrontierView, plot_frontier, save_figure

MULTIPLES = (8, 16, 32, 64)
#: Latencies at which every rival is asked, evenly over the frontier: as many as the plot has room for.
RIVAL_BUDGETS = 7
PLOTS = (".png", ".svg")


@dataclass(frozen=True, kw_only=True)
class FrontierFiles:
    """Where the curve goes: a CSV and a plot of one name."""

    csv: Path
    plot: Path

    @classmethod
    def named(cls, path: Path) -> FrontierFiles:
        """`curve.csv` and `curve.svg` write both names; a `.csv` alone comes with a `.png`."""
        suffix = path.suffix.lower()
        if suffix not in (".csv", *PLOTS):
            raise InvalidShape(
                f"--frontier {path} must end in .csv, .png or .svg; a CSV and a plot of that name are written."
            )
        return cls(csv=path.with_suffix(".csv"), plot=path if suffix in PLOTS else path.with_suffix(".png"))


def write_frontier(
    frontier: Frontier, plan: WidthPlan, files: FrontierFiles, *, report: Callable[[int, int, str], None]
) -> list[FrontierMark]:
    """Both files; returns the rivals' points. A rival that reaches no budget, or that the table cannot price, is left out."""
    marks = [
        FrontierMark(method="host", role="host", latency_us=plan.host_us, importance=plan.host_importance),
        FrontierMark(method="plan", role="ours", latency_us=plan.predicted_us, importance=plan.importance),
        *rivals(frontier, plan.latency_kind, report),
    ]
    view = FrontierView(
        latency_us=[p.latency_us for p in frontier.points],
        importance=[p.importance for p in frontier.points],
        bound=[frontier.bound(p.latency_us) for p in frontier.points],
        marks=marks,
        kind=plan.latency_kind,  # type: ignore[arg-type]
    )
    write_text_atomically(files.csv, frontier_csv(frontier))
    conditions = f"batch {plan.input_shape[0]}, {plan.dtype}"
    save_figure(plot_frontier(view, title=f"{plan.model}, {conditions}: policy {plan.policy}, rivals at any ratio"), files.plot,
                alt=f"importance kept against latency of {plan.model}")  # fmt: skip
    return marks


def frontier_csv(frontier: Frontier) -> str:
    """A row for each plan: latency, importance, what no plan exceeds there, the gap, and every group's width."""
    groups = [g.group for g in frontier.problem.scores.groups]
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["latency_us", "importance", "bound", "gap", *groups])
    for point in frontier.points:
        us, widths = point.latency_us, point.widths
        values = (point.importance, frontier.bound(us), frontier.gap(us))
        writer.writerow([f"{us:.6f}", *(f"{value:.9f}" for value in values), *(widths[g] for g in groups)])
    return text.getvalue()


def frontier_body(frontier: Frontier, marks: list[FrontierMark], files: FrontierFiles) -> dict[str, Any]:
    """What `--json` says of it: the ends, the worst gap, the rivals; the curve itself is in the CSV."""
    fastest, best = frontier.points[0], frontier.points[-1]
    return {
        "csv": str(files.csv),
        "plot": str(files.plot),
        "plans": len(frontier.points),
        "fastest": {"latency_us": fastest.latency_us, "importance": fastest.importance},
        "best": {"latency_us": best.latency_us, "importance": best.importance},
        "largest_gap": max(frontier.gap(point.latency_us) for point in frontier.points),
        "rivals": [
            {
                "method": mark.method,
                "latency_us": mark.latency_us,
                "importance": mark.importance,
                "frontier_importance": _at(frontier, mark.latency_us),
            }
            for mark in marks
        ],
    }


def rivals(frontier: Frontier, kind: str, report: Callable[[int, int, str], None]) -> Iterator[FrontierMark]:
    """The greedy and the fixed multiples at a few latencies, each point once; none that is modelled beside measured plans."""
    problem = frontier.problem
    graph, scores, costs = problem.graph, problem.scores, problem.costs
    fastest, best = frontier.points[0].latency_us, frontier.points[-1].latency_us
    targets = [fastest + i / (RIVAL_BUDGETS - 1) * (best - fastest) for i in range(RIVAL_BUDGETS)]

    def greedy(us: float) -> WidthPlan:
        return greedy_plan(graph, scores, costs, candidates=frontier.candidates, target_us=us)

    def multiple(size: int) -> Callable[[float], WidthPlan]:
        return lambda us: fixed_multiple(graph, scores, costs, size, target_us=us)

    methods = {"greedy": greedy, **{f"multiple {size}": multiple(size) for size in MULTIPLES}}
    for done, (name, answer) in enumerate(methods.items()):
        report(done, len(methods), name)
        seen: set[tuple[float, float]] = set()
        for us in targets:
            try:
                plan = answer(us)
            except (NoPlan, MissingLatency):
                continue
            if plan.latency_kind == "modelled" != kind:
                continue
            point = (plan.predicted_us, scores.importance_kept(plan.widths))
            if point not in seen:
                seen.add(point)
                yield FrontierMark(method=name, role="rival", latency_us=point[0], importance=point[1])


def _at(frontier: Frontier, latency_us: float) -> float | None:
    """What the frontier keeps within this latency; None below its fastest plan."""
    within = [p.importance for p in frontier.points if p.latency_us <= latency_us]
    return within[-1] if within else None
