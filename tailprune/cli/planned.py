"""What `plan` and `prune` share: a network, a host's choice by scores, and a plan from it."""

from __future__ import annotations

from dataclasses import dataclass

from ..core.graph import ModelGraph
from ..core.plan import Budget, WidthPlan
from ..core.scores import ChannelScores
from ..filling import measure_missing
from ..planning import candidate_widths, choose_host, plan_widths, required_shapes
from .console import progress, resumable, warn
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
    ratio: float,
    scope: str,
    seed: int,
    policy: str,
    goal: str,
    reach: int,
    budget: str | None,
    quiet: bool,
) -> Planned:
    """Trace, score, let an unrounded host choose, and snap; what the table lacks is measured where a device is given."""
    from ..pruning import score_channels

    limit = Budget.parse(budget) if budget else None
    graph = loaded.trace()
    scores = choose_host(score_channels(loaded.module, graph, importance, seed=seed), ratio, scope=scope)
    if latency.timer is not None and latency.table is not None:
        with progress("measuring what is missing", quiet=quiet) as report, resumable():
            candidates = candidate_widths(graph, scores, latency.source, policy=policy, reach=reach)
            measure_missing(latency.table, required_shapes(graph, candidates.widths), latency.timer, progress=report)
    plan = plan_widths(graph, scores, latency=latency.source, policy=policy, goal=goal, reach=reach, budget=limit)
    if loaded.weights == "random":
        warn("weights are random, so the scores mean nothing; give --weights FILE for a plan to use", quiet=quiet)
    for warning in plan.warnings:
        warn(warning, quiet=quiet)
    return Planned(graph=graph, scores=scores, plan=plan)
