"""What `plan` and `prune` share: a network, a host's choice, and a plan from it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import cast

from ..core.graph import ModelGraph
from ..core.plan import Budget, WidthPlan
from ..core.scores import ChannelScores
from ..filling import measure_missing
from ..planning import Goal, Policy, candidate_widths, plan_widths, required_shapes
from .console import progress, resumable, warn
from .host import choose
from .latency import Latency
from .models import LoadedModel


@dataclass(frozen=True, kw_only=True)
class Planned:
    graph: ModelGraph
    scores: ChannelScores
    plan: WidthPlan


def make_plan(
    loaded: LoadedModel,
    latency: Latency,
    *,
    importance: str,
    ratio: float | None,
    widths: Path | None,
    from_zeros: float | None,
    scope: str,
    seed: int,
    policy: str,
    goal: str,
    reach: int,
    budget: str | None,
    quiet: bool,
) -> Planned:
    """Trace, score, let the host choose, and snap; what the table lacks is measured where a device is given."""
    limit = Budget.parse(budget) if budget else None
    graph = loaded.trace()
    scores = choose(
        loaded, graph, ratio=ratio, widths=widths, from_zeros=from_zeros, importance=importance, scope=scope, seed=seed
    )
    if latency.timer is not None and latency.table is not None:
        with progress("measuring what is missing", quiet=quiet) as report, resumable():
            candidates = candidate_widths(graph, scores, latency.source, policy=cast(Policy, policy), reach=reach)
            measure_missing(latency.table, required_shapes(graph, candidates.widths), latency.timer, progress=report)
    plan = plan_widths(
        graph, scores, latency=latency.source, policy=cast(Policy, policy), goal=cast(Goal, goal),
        reach=reach, budget=limit,
    )  # fmt: skip
    if loaded.weights == "random":
        warn("weights are random, so the scores mean nothing; give --weights FILE for a plan to use", quiet=quiet)
    for warning in plan.warnings:
        warn(warning, quiet=quiet)
    return Planned(graph=graph, scores=scores, plan=plan)
