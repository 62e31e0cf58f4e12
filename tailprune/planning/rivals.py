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
    time: int


def fixed_multiple(
    graph: ModelGraph,
    scores: ChannelScores,
    latency: LatencySource,
    multiple: int,
    *,
    target_us: float,
    scope: Scope = "global",
) -> WidthPlan:
    """What do fixed multiples reach at the same latency, done fairly?

    Every group goes to the multiple nearest to the width an unrounded host gives it (the wider of two equally near),
    at least one multiple and at most the original; groups narrower than the multiple keep the host's width and are
    named. The host's ratio is bisected until the latency is as near to `target_us` as it gets without exceeding it;
    the warnings say how near. With granule G the multiple is the least common one of both. `multiple=1` is the
    unrounded host at the target's latency. `scores` needs no host: one that is there is not used.

    Raises NoPlan where even the highest ratio is slower than the target.
    """
    if isinstance(multiple, bool) or not isinstance(multiple, int) or multiple < 1:
        raise InvalidShape(f"A fixed multiple must be a whole number of at least 1, got {multiple!r}.")
    if not (math.isfinite(target_us) and target_us > 0):
        raise InvalidShape(f"target_us must be positive and finite, got {target_us!r}.")
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
        return _Rounded(ratio=ratio, scores=host, widths=widths, time=costs.total(graph, widths))

    target = int(target_us * TICKS_PER_US)
    fits = [tried for tried in (at(0.0), at(1.0)) if tried.time <= target]
    if not fits:
        raise NoPlan(
            f"Multiples of {multiple} cannot reach {target_us:,.1f} us: at the highest ratio they cost "
            f"{at(1.0).time / TICKS_PER_US:,.1f} us. Raise the target, or lower the multiple."
        )
    slow, fast = 0.0, 1.0
    if fits[0].ratio > 0:
        for _ in range(HALVINGS):
            middle = at((slow + fast) / 2)
            if middle.time <= target:
                fast = middle.ratio
                fits.append(middle)
            else:
                slow = middle.ratio
    best = max(fits, key=lambda tried: (tried.time, scores.importance_kept(tried.widths), -tried.ratio))
    notes = [
        f"latency is {1 - best.time / target:.2%} below the target of {target_us:,.1f} us, at ratio {best.ratio:.4f}"
    ]
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
