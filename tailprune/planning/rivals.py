"""The rivals every plan is compared with: the host unrounded, and fixed multiples in their fair form."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from ..core.errors import InvalidShape, NoPlan
from ..core.graph import ModelGraph
from ..core.plan import WidthPlan
from ..core.protocols import LatencySource
from ..core.scores import ChannelScores
from .costs import TICKS_PER_US, LayerCosts
from .describe import assemble_plan
from .host import Scope, choose_host

#: Halvings of the ratio's interval: 2**-20 is less than one channel in a million.
HALVINGS = 20


def host_plan(graph: ModelGraph, scores: ChannelScores, latency: LatencySource) -> WidthPlan:
    """The unrounded host as a plan: what its own widths cost and keep."""
    costs = LayerCosts.over(latency)
    widths = {**graph.widths, **scores.host_widths}
    return assemble_plan(
        graph, scores, costs, widths=widths, host_widths=widths, reasons=dict.fromkeys(widths, "host"),
        policy="host", goal="host", reach=None, solver="host", status="host", optimality_gap=None,
        original_us=costs.total(graph, graph.widths) / TICKS_PER_US, budget_us=None, warnings=scores.warnings,
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class _Rounded:
    """A host at one ratio and its rounded widths."""

    ratio: float
    scores: ChannelScores
    widths: Mapping[str, int]
    time: int  # in ticks
    kept: float  # importance

    @property
    def us(self) -> float:
        return self.time / TICKS_PER_US


def fixed_multiple(
    graph: ModelGraph,
    scores: ChannelScores,
    latency: LatencySource,
    multiple: int,
    *,
    target_us: float | None = None,
    target_importance: float | None = None,
    scope: Scope = "global",
) -> WidthPlan:
    """What do fixed multiples reach at the same latency, or at the same importance kept, done fairly?

    Every group goes to the multiple nearest to the width an unrounded host gives it (the wider of two equally near),
    at least one multiple and at most the original; groups narrower than the multiple keep the host's width and are
    named. The host's ratio is bisected: towards `target_us`, as near as it gets without exceeding it, or towards
    `target_importance`, as near as it gets without falling below; the warnings say how near. With granule G the
    multiple is the least common one of both. `multiple=1` is the unrounded host at that target. `scores` needs no host:
    one that is there only names the scopes in which importance is counted.

    Raises NoPlan where no ratio reaches the target.
    """
    if isinstance(multiple, bool) or not isinstance(multiple, int) or multiple < 1:
        raise InvalidShape(f"A fixed multiple must be a whole number of at least 1, got {multiple!r}.")
    given = target_us if target_importance is None else target_importance
    if (target_us is None) == (target_importance is None) or not (math.isfinite(given or 0.0) and (given or 0.0) > 0):
        raise InvalidShape(
            "A fixed multiple is bisected to exactly one target, positive and finite: "
            f"got target_us={target_us!r}, target_importance={target_importance!r}."
        )
    costs = LayerCosts.over(latency)
    steps = {g.group: math.lcm(multiple, graph.group(g.group).granule) for g in scores.groups}
    left_out = tuple(g.group for g in scores.groups if g.width < steps[g.group])

    def at(ratio: float) -> _Rounded:
        host = choose_host(scores, ratio, scope=scope, keep_one=True)
        widths = {
            g.group: g.host_width
            if g.group in left_out or not graph.group(g.group).prunable
            else _nearest(g.host_width, steps[g.group], g.width)
            for g in host.groups
        }
        return _Rounded(
            ratio=ratio,
            scores=host,
            widths=widths,
            time=costs.total(graph, widths),
            kept=scores.importance_kept(widths),
        )

    def fits(tried: _Rounded) -> bool:
        return tried.kept >= target_importance if target_importance is not None else tried.us <= (target_us or 0.0)

    # High ratios fit a latency, low ones an importance; both change with the ratio in small steps, nearly monotone.
    inside, outside = (at(0.0), at(1.0)) if target_importance is not None else (at(1.0), at(0.0))
    if not fits(inside):
        reached = f"keep {inside.kept:.2%}" if target_importance is not None else f"cost {inside.us:,.1f} us"
        wanted = f"{target_importance:.2%}" if target_importance is not None else f"{target_us:,.1f} us"
        raise NoPlan(
            f"Multiples of {multiple} cannot reach {wanted}: at best, ratio {inside.ratio:.0f}, they {reached}. "
            "Change the target, or lower the multiple."
        )
    fitting = [inside, *([outside] if fits(outside) else [])]
    for _ in range(HALVINGS if len(fitting) == 1 else 0):
        middle = at((inside.ratio + outside.ratio) / 2)
        if fits(middle):
            inside = middle
            fitting.append(middle)
        else:
            outside = middle
    if target_importance is not None:
        best = min(fitting, key=lambda tried: (tried.time, -tried.kept, tried.ratio))
        notes = [f"importance kept is {best.kept - target_importance:.2%} above the target, at ratio {best.ratio:.4f}"]
    else:
        best = max(fitting, key=lambda tried: (tried.time, tried.kept, -tried.ratio))
        notes = [f"latency is {1 - best.us / (target_us or 1.0):.2%} below the target, at ratio {best.ratio:.4f}"]
    if left_out:
        notes.append(f"narrower than {multiple}, left out: {', '.join(left_out)}")
    widths = {**graph.widths, **best.widths}
    host_widths = {**graph.widths, **best.scores.host_widths}
    reasons = {group: "left out" if group in left_out else f"multiple of {steps.get(group, 1)}" for group in widths}
    return assemble_plan(
        graph, best.scores, costs, widths=widths, host_widths=host_widths, reasons=reasons,
        policy=f"multiple-{multiple}", goal="rule", reach=None, solver="bisection", status="feasible", optimality_gap=None,
        original_us=costs.total(graph, graph.widths) / TICKS_PER_US, budget_us=target_us, warnings=(*scores.warnings, *notes),
    )  # fmt: skip


def _nearest(width: int, multiple: int, original: int) -> int:
    return min(max((width + multiple // 2) // multiple, 1) * multiple, original // multiple * multiple)
