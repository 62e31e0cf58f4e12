"""What does a plan, a staircase, a comparison or a table say on a terminal? Rich renderables, data in, nothing printed."""

from __future__ import annotations

from collections.abc import Mapping

from rich import box
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from ..core.plan import WidthPlan
from ..steps import Staircase
from .comparison import Comparison, ComparisonRow
from .notation import change, microseconds, percent, quantity


def plan_table(plan: WidthPlan, *, moved_only: bool = False) -> Table:
    """Per channel group: original width, the host's, the plan's, and why. `moved_only` leaves the rest to one line."""
    choices = plan.moved if moved_only else plan.choices
    table = _table(
        f"{escape(plan.model)}: {escape(plan.policy)}/{escape(plan.goal)}, "
        f"{len(plan.moved)} of {len(plan.choices)} groups moved",
        caption=f"host {microseconds(plan.host_us, kind=plan.latency_kind)} → plan "
        f"{microseconds(plan.predicted_us, kind=plan.latency_kind)} ({change(-plan.saving)}); "
        f"{plan.latency_kind}, {escape(plan.latency_origin)}; batch {plan.input_shape[0]}, {plan.dtype}, {plan.memory_format}",
    )
    table.add_column("group", overflow="fold")
    for heading in ("original", "host", "plan", "moved"):
        table.add_column(heading, justify="right")
    table.add_column("why")
    for choice in choices:
        moved = choice.width - choice.host
        table.add_row(
            Text(choice.group),
            f"{choice.original:,}",
            f"{choice.host:,}",
            f"{choice.width:,}",
            f"{moved:+,}" if moved else "",
            Text(choice.reason),
            style="" if moved else "dim",
        )
    if left := len(plan.choices) - len(choices):
        table.add_row(f"… {left} more as the host left {'it' if left == 1 else 'them'}", style="dim")
    return table


def staircase_table(staircase: Staircase, *, title: str = "") -> Table:
    """Plateaus in ascending order: widths, latency, and the riser behind each edge with its verdict."""
    curve = staircase.curve
    usable = "" if staircase.usable else "; no usable steps here"
    table = _table(
        escape(title) or "staircase",
        caption=f"{len(curve)} widths {curve.widths[0]}..{curve.widths[-1]}, {curve.kind}; noise floor "
        f"{staircase.noise_floor:.2%}, risers from {staircase.min_riser:.1%}{usable}",
    )
    for heading in ("plateau", "edge", "latency", "riser", "sigmas"):
        table.add_column(heading, justify="right")
    table.add_column("verdict")
    styles = {"confirmed": "", "ambiguous": "yellow", "end": "dim"}
    for plateau in staircase.plateaus:
        ends = plateau.verdict == "end"
        table.add_row(
            f"{plateau.low}..{plateau.high}",
            f"{plateau.high}",
            microseconds(plateau.high_us, kind=curve.kind),
            "" if ends else change(plateau.riser),
            "" if ends else f"{plateau.sigmas:.1f}",
            plateau.verdict,
            style=styles[plateau.verdict],
        )
    return table


def comparison_table(comparison: Comparison, *, title: str = "measured interleaved in one run") -> Table:
    """One row per method; rivals that our fastest network does not beat carry a mark."""
    table = _table(escape(title), caption=escape(" ".join([comparison.sentence, *comparison.caveats])))
    table.add_column("method", no_wrap=True)
    for heading in row_cells(comparison, comparison.host):
        table.add_column(heading.replace(" ", "\n"), justify="right", no_wrap=True)
    styles = {"ours": "bold green", "host": "bold", "dense": "dim", "rival": ""}
    for row in comparison.rows:
        table.add_row(
            Text("\n  ".join(filter(None, (row.method, unbeaten_mark(comparison, row), row.note)))),
            *row_cells(comparison, row).values(),
            style=styles[row.role],
        )
    return table


def row_cells(comparison: Comparison, row: ComparisonRow) -> dict[str, str]:
    """A comparison row's numbers as text, heading by heading; the page shows the same."""
    return {
        "groups": f"{row.groups_changed} of {row.groups_total}" if row.role in ("rival", "ours") else "–",
        "MACs": quantity(row.macs),
        "params": quantity(row.params),
        "predicted": microseconds(row.predicted_us, kind=row.latency_kind),
        "measured": microseconds(row.measured_us, spread=row.spread_us),
        "vs host": "–" if row.role == "host" else change(comparison.against_host(row)),
        "importance": percent(row.importance),
        "accuracy before": percent(row.accuracy_before),
        "accuracy after": percent(row.accuracy_after, noise=row.accuracy_noise),
    }


def unbeaten_mark(comparison: Comparison, row: ComparisonRow) -> str:
    return "we do not win here" if row in comparison.unbeaten else ""


def facts_table(facts: Mapping[str, object], *, title: str) -> Table:
    """Name and value, a line each: what a latency table holds, or what a run ran on."""
    table = _table(escape(title))
    table.show_header = False
    table.add_column("what", style="bold")
    table.add_column("value", overflow="fold")
    for name, value in facts.items():
        table.add_row(
            Text(str(name)),
            Text(f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)),
        )
    return table


def _table(title: str, *, caption: str = "") -> Table:
    return Table(
        title=title, caption=caption or None, box=box.SIMPLE_HEAD, title_justify="left", caption_justify="left"
    )
