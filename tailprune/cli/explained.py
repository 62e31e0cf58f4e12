"""`plan --explain`: why every group has its width, and which plans lie beside this one."""

from __future__ import annotations

from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ..core.plan import WidthPlan
from ..planning import Explanation, NextPlan
from ..reports.notation import microseconds, percent

#: Changes of a neighbouring plan that are listed by name; the rest is counted.
CHANGES_SHOWN = 6


def explanation_view(plan: WidthPlan, explanation: Explanation) -> RenderableType:
    """A line for each group, and one for each neighbouring plan."""
    table = Table(
        title=f"why these widths ({plan.policy}/{plan.goal})",
        caption="free: channels that cost nothing more; saves, costs: µs for each 1 % of the network's importance that "
        "the group's best step down loses, or its best step up gains, the other groups as planned",
        title_justify="left",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    table.add_column("group", overflow="fold", min_width=14)
    for heading in ("before", "host", "after", "free", "saves", "costs"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("why")
    for group in explanation.groups:
        choice = group.choice
        table.add_row(
            Text(choice.group),
            f"{choice.original:,}",
            f"{choice.host:,}",
            f"{choice.width:,}",
            f"+{group.headroom}" if group.headroom else "",
            _price(group.saving_us),
            _price(group.cost_us),
            Text(choice.reason),
            style="" if choice.width != choice.host else "dim",
        )
    lines = [
        _neighbour("next cheaper plan", plan, explanation.cheaper, "none: this is the fastest these widths allow"),
        _neighbour("next better plan", plan, explanation.better, "none: these widths allow no higher importance"),
    ]
    return Group(table, *lines)


def explanation_body(explanation: Explanation) -> dict[str, Any]:
    """The same for `--json`."""

    def body(other: NextPlan | None) -> dict[str, Any] | None:
        if other is None:
            return None
        changes = {group: {"from": now, "to": then} for group, (now, then) in other.changes.items()}
        return {"latency_us": other.latency_us, "importance": other.importance, "changes": changes}

    return {
        "groups": {
            group.choice.group: {
                "before": group.choice.original,
                "host": group.choice.host,
                "after": group.choice.width,
                "why": group.choice.reason,
                "on_edge": group.on_edge,
                "headroom": group.headroom,
                "us_saved_per_percent_lost": group.saving_us,
                "us_paid_per_percent_gained": group.cost_us,
            }
            for group in explanation.groups
        },
        "next_cheaper": body(explanation.cheaper),
        "next_better": body(explanation.better),
    }


def _price(us: float | None) -> str:
    return "–" if us is None else microseconds(us).removesuffix(" µs")


def _neighbour(name: str, plan: WidthPlan, other: NextPlan | None, none: str) -> Text:
    if other is None:
        return Text(f"{name}: {none}")
    changes = [f"{group} {now}→{then}" for group, (now, then) in other.changes.items()]
    rest = f" and {len(changes) - CHANGES_SHOWN} more" if len(changes) > CHANGES_SHOWN else ""
    us, points = other.latency_us - plan.predicted_us, 100 * (other.importance - plan.importance)
    said = (
        f"{microseconds(other.latency_us, kind=plan.latency_kind)} ({us:+,.1f} µs), "
        f"{percent(other.importance)} kept ({points:+.3f} points)"
    ).replace("(-", "(−")
    return Text(f"{name}: {said}: {', '.join(changes[:CHANGES_SHOWN])}{rest}")
