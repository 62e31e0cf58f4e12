"""A solution written down as a plan: choices with their reasons, proof, provenance and warnings."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Collection, Mapping

import numpy as np

from ..core.graph import ModelGraph
from ..core.plan import GroupChoice, WidthPlan
from ..core.scores import ChannelScores
from .candidates import Candidates
from .costs import TICKS_PER_US, LayerCosts
from .problem import UNITS_OF_IMPORTANCE, Objective, Problem, Solution, importance_units, tie


def write_plan(
    problem: Problem,
    found: Solution,
    objective: Objective,
    *,
    candidates: Candidates,
    policy: str,
    goal: str,
    reach: int | None,
    original_us: float,
    host_widths: Mapping[str, int],
    budget_us: float | None,
    frozen: Collection[str],
) -> WidthPlan:
    graph, scores, costs = problem.graph, problem.scores, problem.costs
    widths = problem.widths(found.positions)
    host_time, host_loss = problem.measure(host_widths)
    unmoved = all(widths[g.group] == host_widths[g.group] for g in scores.groups)
    warnings = [*scores.warnings, *candidates.warnings]
    if graph.untraced:
        warnings.append(f"not in the latency sum, because untraced: {', '.join(graph.untraced)}")
    if unmoved and budget_us is None:
        warnings.append("no gain from steps: the plan is the host")
    warnings += _at_the_limits(widths, candidates, objective, found.time, floors=policy != "grow")
    if budget_us is None and found.time > host_time:
        warnings.append(f"slower than the host by {(found.time - host_time) / TICKS_PER_US:,.1f} us")
    if budget_us is None and found.loss > host_loss + problem.tie:
        warnings.append(f"keeps less importance than the host, by {(found.loss - host_loss) / UNITS_OF_IMPORTANCE:.2%}")
    proved = goal != "rule" and found.is_optimal(objective)
    return assemble_plan(
        graph,
        scores,
        costs,
        widths=widths,
        host_widths=host_widths,
        reasons={
            group: _reason(graph, group, widths[group], host_widths[group], candidates, frozen) for group in widths
        },
        policy=policy,
        goal=goal,
        reach=reach,
        solver=found.solver,
        status="host" if unmoved else "optimal" if proved else "feasible",
        optimality_gap=_gap(problem, found, objective) if goal != "rule" else None,
        original_us=original_us,
        budget_us=budget_us,
        warnings=tuple(warnings),
    )


def _at_the_limits(
    widths: Mapping[str, int], candidates: Candidates, objective: Objective, time: int, *, floors: bool
) -> list[str]:
    """Where the allowed widths, not the trade-off, decided; growing has no `floors`, it starts there."""
    free = {group: allowed for group, allowed in candidates.widths.items() if len(allowed) > 1}
    narrowest = [group for group, allowed in free.items() if widths[group] == allowed[0]]
    widest = [group for group, allowed in free.items() if widths[group] == allowed[-1]]
    notes: list[str] = []
    if objective.minimise == "time":
        return notes
    if floors and free and 2 * len(narrowest) > len(free):
        notes.append(
            f"{len(narrowest)} of {len(free)} groups lie on their floors; lower floor or min_widths, or raise reach, "
            "for a better plan"
        )
    if free and len(widest) == len(free) and time < objective.limit:
        notes.append(
            f"every group is at its widest allowed width, {(objective.limit - time) / TICKS_PER_US:,.1f} us are left over; "
            "raise reach or max_widths to use them"
        )
    return notes


def assemble_plan(
    graph: ModelGraph,
    scores: ChannelScores,
    costs: LayerCosts,
    *,
    widths: Mapping[str, int],
    host_widths: Mapping[str, int],
    reasons: Mapping[str, str],
    policy: str,
    goal: str,
    reach: int | None,
    solver: str,
    status: str,
    optimality_gap: float | None,
    original_us: float,
    budget_us: float | None,
    warnings: tuple[str, ...],
) -> WidthPlan:
    """One choice for every group that has scores, with the channels it keeps; the latencies are priced here."""
    choices = tuple(
        GroupChoice(
            group=g.group,
            original=g.width,
            host=host_widths[g.group],
            width=widths[g.group],
            kept=g.kept_channels(widths[g.group]),
            reason=reasons[g.group],
        )
        for g in scores.groups
    )
    host, kept = importance_units(scores, host_widths), importance_units(scores, widths)
    return WidthPlan(
        model=graph.model,
        fingerprint=graph.fingerprint,
        input_shape=graph.input_shape,
        choices=choices,
        policy=policy,
        goal=goal,
        reach=reach,
        solver=solver,
        status=status,
        optimality_gap=optimality_gap,
        original_us=original_us,
        host_us=costs.total(graph, host_widths) / TICKS_PER_US,
        predicted_us=costs.total(graph, widths) / TICKS_PER_US,
        budget_us=budget_us,
        latency_kind=costs.worst_kind(graph, graph.widths, host_widths, widths),
        latency_origin=costs.origin,
        host_importance=host / UNITS_OF_IMPORTANCE,
        importance=(host if abs(kept - host) <= tie(scores) else kept) / UNITS_OF_IMPORTANCE,
        scores_method=scores.method,
        dtype=graph.dtype,
        memory_format=graph.memory_format,
        warnings=warnings,
        versions={"tailprune": _own_version(), "numpy": np.__version__},
    )


def _reason(
    graph: ModelGraph, group: str, width: int, host: int, candidates: Candidates, frozen: Collection[str]
) -> str:
    if not graph.group(group).prunable:
        return f"not prunable: {graph.group(group).reason}" if graph.group(group).reason else "not prunable"
    if group in frozen:
        return "frozen"
    on_edge = width in candidates.edges.get(group, ())
    if width == host:
        return "host, on an edge" if on_edge else "host"
    return ("shrunk" if width < host else "grown") + (" to edge" if on_edge else " to its limit")


def _gap(problem: Problem, found: Solution, objective: Objective) -> float | None:
    """By what share a better plan could still undercut the latency, or exceed the importance."""
    if found.bound is None:
        return None
    if objective.minimise == "time":
        return max(0.0, (found.time - found.bound) / max(found.time, 1))
    return max(0.0, (found.loss - found.bound) / max(problem.best_value - found.loss, 1))


def _own_version() -> str:
    try:
        return importlib.metadata.version("tailprune")
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
