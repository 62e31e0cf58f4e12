"""The frontier: the best importance at every latency, with a proved gap at each."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from ..core.errors import InvalidShape, NoPlan
from ..core.graph import ModelGraph
from ..core.plan import Budget, WidthPlan
from ..core.protocols import LatencySource
from ..core.scores import ChannelScores
from .candidates import Candidates, Policy, candidate_widths
from .costs import TICKS_PER_US, LayerCosts
from .describe import write_plan
from .eliminate import solve_by_elimination
from .hull import TradeOff, hold_against, trace_trade_off
from .problem import UNITS_OF_IMPORTANCE, Objective, Positions, Problem, build_problem
from .tree import build_tree

#: Where the plans of a frontier are nearer than this to the bound, as a share of all the importance, no more are sought:
#: a gap of 0.1 % wherever at least 80 % is kept.
FRONTIER_GAP = 8e-4
#: The same among thinned candidates, whose plans lie further apart: the smaller gap would take as long as all candidates.
THINNED_GAP = 2 * FRONTIER_GAP
#: The last of the time limit, for bounding a thinned frontier by all candidates.
PROVING = 0.25


@dataclass(frozen=True, kw_only=True)
class FrontierPoint:
    """One undominated plan: no other known one is both as fast and keeps as much."""

    latency_us: float
    importance: float
    problem: Problem
    positions: Positions

    @property
    def widths(self) -> dict[str, int]:
        return self.problem.widths(self.positions)


@dataclass(frozen=True, kw_only=True, eq=False)
class Frontier:
    """What does every budget buy? Plans from the fastest to the best, and how much better any other could be."""

    problem: Problem
    candidates: Candidates
    policy: Policy
    reach: int | None
    frozen: Collection[str]
    trade_off: TradeOff
    num_tried: int  # candidates left when those that others replace were dropped
    seconds: float

    @cached_property
    def points(self) -> tuple[FrontierPoint, ...]:
        """By rising latency and rising importance."""
        plans, best = self.trade_off.plans, self.problem.best_value
        return tuple(
            FrontierPoint(
                latency_us=int(ticks) / TICKS_PER_US,
                importance=(best - int(loss)) / UNITS_OF_IMPORTANCE,
                problem=self.problem,
                positions=tuple(int(p) for p in positions),
            )
            for ticks, loss, positions in zip(plans.time, plans.loss, plans.positions, strict=True)
        )

    def bound(self, latency_us: float) -> float:
        """No plan within this latency keeps more importance. NoPlan below the fastest."""
        loss = float(self.trade_off.bound(np.array([self._ticks(latency_us)]))[0])
        return (self.problem.best_value - loss) / UNITS_OF_IMPORTANCE

    def gap(self, latency_us: float) -> float:
        """By what share a better plan could still exceed the importance of the one known within this latency."""
        ticks = np.array([self._ticks(latency_us)])
        loss = int(self.trade_off.best_loss(ticks)[0])
        return max(0.0, (loss - float(self.trade_off.bound(ticks)[0])) / max(self.problem.best_value - loss, 1))

    @cached_property
    def worst_gap(self) -> float:
        """The largest `gap` at any latency from the fastest plan up."""
        plans, best = self.trade_off.plans, self.problem.best_value
        ends = np.append(plans.time[1:] - 1, plans.time[-1])  # gaps are largest just before the next plan
        return float(((plans.loss - self.trade_off.bound(ends)) / np.maximum(best - plans.loss, 1)).max())

    def plan(self, budget: Budget, *, time_limit_s: float = 10.0) -> WidthPlan:
        """The best plan within a budget: what the curve has there, and from there on solved as `plan_widths` does."""
        problem, graph, scores = self.problem, self.problem.graph, self.problem.scores
        host_widths = {**graph.widths, **scores.host_widths}
        original_us = problem.costs.total(graph, graph.widths) / TICKS_PER_US
        host_us = problem.costs.total(graph, host_widths) / TICKS_PER_US
        budget_us = budget.resolve(original_us=original_us, host_us=host_us)
        ticks = self._ticks(budget_us)
        rank = int(np.searchsorted(self.trade_off.time, ticks, side="right")) - 1
        known = tuple(int(p) for p in self.trade_off.plans.positions[rank])
        bound = int(np.ceil(self.trade_off.bound(np.array([ticks]))[0]))
        objective = Objective(minimise="loss", limit=ticks)
        found = problem.solution(known, solver="elimination", bound=bound)
        if not found.is_optimal(objective):
            solved = solve_by_elimination(problem, objective, starts=[known], time_limit_s=time_limit_s)
            found = found if solved is None else replace(solved, bound=max(bound, solved.bound or 0))
        return write_plan(
            problem, found, objective, candidates=self.candidates, policy=self.policy, goal="better",
            reach=self.reach, original_us=original_us, host_widths=host_widths, budget_us=budget_us, frozen=self.frozen,
        )  # fmt: skip

    def _ticks(self, latency_us: float) -> int:
        # a plan's own latency, divided and multiplied again, may miss its ticks by a rounding
        ticks, fastest = int(round(latency_us * TICKS_PER_US, 3)), int(self.trade_off.time[0])
        if ticks < fastest:
            raise NoPlan(
                f"Budget {latency_us:,.1f} us is below the cheapest plan, {fastest / TICKS_PER_US:,.1f} us. "
                "Raise the budget, or lower min_widths."
            )
        return ticks


def plan_frontier(
    graph: ModelGraph,
    scores: ChannelScores,
    *,
    latency: LatencySource,
    policy: Policy = "reallocate",
    reach: int = 1,
    min_widths: Mapping[str, int] | None = None,
    max_widths: Mapping[str, int] | None = None,
    frozen: Collection[str] = (),
    every: int | None = None,
    floor: float | None = None,
    thin: float = 0.0,
    time_limit_s: float = 10.0,
) -> Frontier:
    """What importance does every latency buy, and how much more could any plan keep?

    One elimination per price gives the lower hull of (latency, importance lost) and a bound at every latency; near
    each of its stretches all undominated plans are listed until the gap is at most FRONTIER_GAP, or the time is up.
    One call answers any number of budgets: `frontier.plan(budget)` starts from the curve and solves that budget exactly.

    `thin` leaves candidates out that a wider one replaces at no more than this share of additional time in the group's
    layers, whatever the neighbours' widths. It saves time and may cost importance; gaps stay proved against **all**
    candidates (bounds come from the whole set, at some dozens of prices), and each plan's warnings say how large they are.

    Raises InvalidShape where concatenations reach too many sums to eliminate: plan single budgets there.
    """
    if not 0 <= thin < 1:
        raise InvalidShape(
            f"thin must lie in 0..1, a share of a group's time, got {thin!r}; 0.1 leaves 40 % of the candidates of a ResNet-50."
        )
    started = time.monotonic()
    costs = LayerCosts.over(latency)
    candidates = candidate_widths(
        graph, scores, costs, policy=policy, reach=reach, min_widths=min_widths, max_widths=max_widths, frozen=frozen,
        every=every, floor=floor,
    )  # fmt: skip
    problem = build_problem(graph, scores, costs, candidates.widths)
    tree = build_tree(problem)
    if tree is None:
        raise InvalidShape(
            f"The concatenations of {graph.model} reach too many sums of widths for a frontier. Give fewer candidates "
            "(a larger `every` or `floor`, or frozen groups), or plan single budgets with plan_widths."
        )
    thinned = build_tree(problem, slack=thin) if thin else None
    tried = tree if thinned is None else thinned
    gap, share = (THINNED_GAP, 1 - PROVING) if thin else (FRONTIER_GAP, 1.0)
    trade_off = trace_trade_off(tried, problem, gap=gap, deadline=started + share * time_limit_s)
    if thin:
        hold_against(trade_off, tree, started + time_limit_s)
    frontier = Frontier(
        problem=problem, candidates=candidates, policy=policy, reach=reach if policy == "snap" else None,
        frozen=frozen, trade_off=trade_off, num_tried=sum(map(len, tried.kept[: tried.num_groups])),
        seconds=time.monotonic() - started,
    )  # fmt: skip
    return _confessing(frontier, thin) if thin else frontier


def _confessing(frontier: Frontier, thin: float) -> Frontier:
    """The frontier with a warning of what thinning left, and of what it may have cost."""
    in_all = sum(map(len, frontier.problem.structure.candidates))
    note = (
        f"thinned by {thin:.1%} of latency, {frontier.num_tried:,} of {in_all:,} candidates were tried; against all of "
        f"them, no point of this frontier loses more than {frontier.worst_gap:.2%} of what it keeps"
    )
    candidates = replace(frontier.candidates, warnings=(*frontier.candidates.warnings, note))
    return replace(frontier, candidates=candidates)
