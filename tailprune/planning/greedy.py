"""The strongest simple rival: a greedy descent over step edges, with true joint costs."""

from __future__ import annotations

from collections.abc import Mapping
from heapq import heapify, heappop, heappush

import numpy as np

from ..core.errors import NoPlan
from ..core.graph import ModelGraph
from ..core.plan import WidthPlan
from ..core.protocols import LatencySource
from ..core.scores import ChannelScores
from .candidates import Candidates
from .costs import TICKS_PER_US, LayerCosts
from .describe import assemble_plan
from .structure import Integers


def greedy_plan(
    graph: ModelGraph, scores: ChannelScores, latency: LatencySource, *, candidates: Candidates, target_us: float
) -> WidthPlan:
    """What does a step-aware greedy keep within a latency, choosing from the same `candidates` as the planner?

    From every group's widest candidate it goes down, one group at a time, always taking the narrower candidate of any
    group that saves the most microseconds per importance lost, as long as the sum over layers exceeds `target_us`.
    Savings are joint: both ends of every layer, at the widths reached so far. What room is left at the end is given
    back to the groups that gain most importance by it. A group whose neighbours moved is priced again when it comes up
    (savings mostly fall as neighbours narrow). Raises NoPlan where the descent ends above the target.
    """
    costs = LayerCosts.over(latency)
    limit = int(target_us * TICKS_PER_US)
    descent = _Descent(graph, scores, costs, candidates.widths)
    descent.go_below(limit)
    descent.fill_up(limit)
    widths = descent.widths
    return assemble_plan(
        graph, scores, costs, widths=widths, host_widths={**graph.widths, **scores.host_widths},
        reasons=dict.fromkeys(widths, "greedy"), policy="greedy", goal="rule", reach=None,
        solver="greedy", status="feasible", optimality_gap=None,
        original_us=costs.total(graph, graph.widths) / TICKS_PER_US, budget_us=target_us,
        warnings=(*scores.warnings, *candidates.warnings),
    )  # fmt: skip


class _Descent:
    """The widths reached so far, what they cost, and each group's best next step down."""

    def __init__(
        self, graph: ModelGraph, scores: ChannelScores, costs: LayerCosts, allowed: Mapping[str, tuple[int, ...]]
    ) -> None:
        self.costs, self.allowed = costs, {g: widths for g, widths in allowed.items() if len(widths) > 1}
        self.values = {
            g: np.array([scores.value(g, min(w, scores.by_group[g].width)) for w in widths])
            for g, widths in self.allowed.items()
        }
        self.layers = {g: graph.layers_of(g) for g in self.allowed}
        self.neighbours = {
            g: {other for layer in layers for other in layer.groups if other in self.allowed and other != g}
            for g, layers in self.layers.items()
        }
        self.place = {g: len(widths) - 1 for g, widths in self.allowed.items()}
        self.widths = {**graph.widths, **{g: widths[-1] for g, widths in allowed.items()}}
        self.time = costs.total(graph, self.widths)

    def curve(self, group: str) -> Integers:
        """Ticks of the group's layers at each of its candidates, all other groups as they are."""
        at, ticks = dict(self.widths), np.zeros(len(self.allowed[group]), dtype=np.int64)
        for i, width in enumerate(self.allowed[group]):
            at[group] = width
            ticks[i] = sum(self.costs.ticks(la, la.in_expr.at(at), la.out_expr.at(at)) for la in self.layers[group])
        return ticks

    def step_down(self, group: str) -> tuple[float, str, int, int] | None:
        """(minus what it saves per importance lost, group, place, saved ticks) of the best narrower candidate."""
        here = self.place[group]
        curve = self.curve(group)
        saved, lost = curve[here] - curve[:here], self.values[group][here] - self.values[group][:here]
        if not np.any(saved > 0):
            return None
        rate = np.where(saved > 0, saved / np.maximum(lost, 1e-15), 0.0)
        best = int(rate.argmax())
        return -float(rate[best]), group, best, int(saved[best])

    def move(self, group: str, place: int, saved: int) -> None:
        self.place[group], self.widths[group] = place, self.allowed[group][place]
        self.time -= saved

    def go_below(self, limit: int) -> None:
        heap = [step for group in self.allowed if (step := self.step_down(group)) is not None]
        heapify(heap)
        stale: set[str] = set()
        while self.time > limit:
            if not heap:
                raise NoPlan(
                    f"The greedy descent ends at {self.time / TICKS_PER_US:,.1f} us, above the target of "
                    f"{limit / TICKS_PER_US:,.1f} us. Raise the target."
                )
            _, group, place, saved = heappop(heap)
            if group not in stale:
                self.move(group, place, saved)
                stale |= self.neighbours[group]
            stale.discard(group)
            again = self.step_down(group)
            if again is not None:
                heappush(heap, again)

    def fill_up(self, limit: int) -> None:
        while True:
            best: tuple[float, str, int, int] | None = None
            for group in self.allowed:
                here, curve = self.place[group], self.curve(group)
                fits = np.flatnonzero(curve[here + 1 :] - curve[here] <= limit - self.time) + here + 1
                if len(fits):
                    gain = float(self.values[group][fits[-1]] - self.values[group][here])
                    if gain > 0 and (best is None or gain > best[0]):
                        best = gain, group, int(fits[-1]), int(curve[here] - curve[fits[-1]])
            if best is None:
                return
            self.move(*best[1:])
