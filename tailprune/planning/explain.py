"""Why these widths? What each group's next step would save or cost, and which plans lie beside this one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ..core.plan import GroupChoice, WidthPlan
from .costs import TICKS_PER_US
from .frontier import Frontier, FrontierPoint


@dataclass(frozen=True, kw_only=True)
class GroupPrices:
    """One group's choice, all others at the plan's widths. Prices are microseconds per percent of the network's importance.

    `headroom` counts channels that could be added for free; `saving_us` is the most that narrowing saves for each
    percent it loses, `cost_us` the least that widening costs for each percent it gains; None where no candidate does.
    """

    choice: GroupChoice
    on_edge: bool
    headroom: int
    saving_us: float | None
    cost_us: float | None


@dataclass(frozen=True, kw_only=True)
class NextPlan:
    """A neighbour on the frontier, and how it differs: group -> (width now, width there)."""

    latency_us: float
    importance: float
    changes: Mapping[str, tuple[int, int]]


@dataclass(frozen=True, kw_only=True)
class Explanation:
    groups: tuple[GroupPrices, ...]
    cheaper: NextPlan | None
    better: NextPlan | None


def explain_plan(plan: WidthPlan, frontier: Frontier) -> Explanation:
    """Why these widths, and what would the next cheaper and the next better plan change?

    `frontier` is that of the same graph, scores and policy. A group with `saving_us` above all others' `cost_us` would
    be narrowed to widen another; in a good plan the two columns hardly overlap, and what lies between is the plan's
    price of a percent. Latencies are sums over layers, from the frontier's source.
    """
    below = [p for p in frontier.points if p.latency_us < plan.predicted_us and p.importance < plan.importance]
    above = [p for p in frontier.points if p.latency_us > plan.predicted_us and p.importance > plan.importance]
    return Explanation(
        groups=tuple(_prices(plan, choice, frontier) for choice in plan.choices),
        cheaper=_next(plan, below[-1]) if below else None,
        better=_next(plan, above[0]) if above else None,
    )


def _next(plan: WidthPlan, point: FrontierPoint) -> NextPlan:
    there = point.widths
    changes = {g: (width, there[g]) for g, width in plan.widths.items() if there[g] != width}
    return NextPlan(latency_us=point.latency_us, importance=point.importance, changes=changes)


def _prices(plan: WidthPlan, choice: GroupChoice, frontier: Frontier) -> GroupPrices:
    problem = frontier.problem
    graph, scores, costs = problem.graph, problem.scores, problem.costs
    group, scored = choice.group, scores.by_group[choice.group]
    allowed = sorted({*frontier.candidates.widths[group], choice.width})
    here, at = allowed.index(choice.width), {**graph.widths, **plan.widths}
    us, kept = np.zeros(len(allowed)), np.zeros(len(allowed))
    for i, width in enumerate(allowed):
        at[group] = width
        ticks = sum(costs.ticks(la, la.in_expr.at(at), la.out_expr.at(at)) for la in graph.layers_of(group))
        us[i], kept[i] = ticks / TICKS_PER_US, 100 * scores.value(group, min(width, scored.width))
    saved, lost = us[here] - us[:here], kept[here] - kept[:here]
    paid, gained = us[here + 1 :] - us[here], kept[here + 1 :] - kept[here]
    savings, prices = (
        saved[(saved > 0) & (lost > 0)] / lost[(saved > 0) & (lost > 0)],
        paid[gained > 0] / gained[gained > 0],
    )
    free = [width for width, more in zip(allowed[here + 1 :], paid, strict=True) if more <= 0]
    return GroupPrices(
        choice=choice,
        on_edge=choice.width in frontier.candidates.edges.get(group, ()),
        headroom=max(free, default=choice.width) - choice.width,
        saving_us=float(savings.max()) if len(savings) else None,
        cost_us=float(max(prices.min(), 0.0)) if len(prices) else None,
    )
