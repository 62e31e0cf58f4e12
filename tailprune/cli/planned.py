"""What `plan` and `prune` share: a network, a host's choice, and a plan from it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Annotated, TypeVar, cast

import typer

from ..core.errors import MissingLatency
from ..core.graph import ModelGraph
from ..core.plan import Budget, WidthPlan
from ..core.protocols import LatencySource
from ..core.scores import ChannelScores
from ..core.shapes import LayerShape
from ..filling import plan_shapes
from ..planning import Frontier, Goal, Policy, plan_frontier, plan_widths
from .console import warn
from .host import PANEL, HostOptions, choose
from .latency import Latency
from .models import LoadedModel

Decision = TypeVar("Decision")


@dataclass(frozen=True, kw_only=True)
class Planned:
    graph: ModelGraph
    scores: ChannelScores
    plan: WidthPlan


@dataclass(frozen=True, kw_only=True)
class GoalOptions:
    """Which widths may be chosen around the host's, and what makes one choice better than another."""

    goal: Annotated[
        str,
        typer.Option(
            help="faster: least latency at no less importance; better: most importance at no more latency.",
            rich_help_panel=PANEL,
        ),
    ] = "faster"
    reach: Annotated[int, typer.Option(help="How many step edges a group may move.", rich_help_panel=PANEL)] = 1
    policy: Annotated[str, typer.Option(help="snap, shrink, grow, nearest or reallocate.", rich_help_panel=PANEL)] = (
        "snap"
    )
    budget: Annotated[str | None, typer.Option(help="60%, 1800us, 1.8ms or host.", rich_help_panel=PANEL)] = None
    every: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="Choose from every multiple of N in range, not from step edges.", rich_help_panel=PANEL
        ),
    ] = None
    floor: Annotated[
        float | None,
        typer.Option(
            help="Least share of the host's width left to a group; two thirds for snap, half for reallocate if not given.",
            rich_help_panel=PANEL,
        ),
    ] = None


def make_plan(
    loaded: LoadedModel, latency: Latency, host: HostOptions, options: GoalOptions, *, quiet: bool
) -> Planned:
    """Trace, score, let the host choose, and snap; what the table lacks is measured where a device is given."""
    budget = Budget.parse(options.budget) if options.budget else None
    graph = loaded.trace()
    scores = choose(loaded, graph, host)

    def decide(source: LatencySource) -> WidthPlan:
        return plan_widths(
            graph,
            scores,
            latency=source,
            policy=cast(Policy, options.policy),
            goal=cast(Goal, options.goal),
            reach=options.reach,
            budget=budget,
            every=options.every,
            floor=options.floor,
        )

    plan = _answered(latency, decide, partial(plan_shapes, graph), quiet=quiet)
    if loaded.weights == "random":
        warn("weights are random, so the scores mean nothing; give --weights FILE for a plan to use", quiet=quiet)
    for warning in plan.warnings:
        warn(warning, quiet=quiet)
    return Planned(graph=graph, scores=scores, plan=plan)


def make_frontier(planned: Planned, latency: Latency, options: GoalOptions, *, quiet: bool) -> Frontier:
    """What every latency buys, over the widths that the plan was chosen from."""

    def decide(source: LatencySource) -> Frontier:
        return plan_frontier(
            planned.graph,
            planned.scores,
            latency=source,
            policy=cast(Policy, planned.plan.policy),
            reach=options.reach,
            every=options.every,
            floor=options.floor,
        )

    def chosen(frontier: Frontier) -> Iterator[LayerShape]:
        return (shape for point in frontier.points for _, shape in planned.graph.shapes_at(point.widths))

    return _answered(latency, decide, chosen, quiet=quiet)


def _answered(
    latency: Latency,
    decide: Callable[[LatencySource], Decision],
    chosen: Callable[[Decision], Iterable[LayerShape]],
    *,
    quiet: bool,
) -> Decision:
    """What `decide` says; what a table without its device lacks is refused with the command that would measure it."""
    try:
        return latency.choose(decide, chosen, quiet=quiet)
    except MissingLatency as error:
        raise MissingLatency(
            f"{error} Or give this command --device cpu or cuda, on the machine the table is of: it then measures them.",
            error.shapes,
        ) from error
