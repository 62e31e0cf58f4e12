"""`tailprune plan --grow`: wider instead of narrower, at no more latency."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from ..core.errors import InvalidShape, MissingLatency
from ..core.plan import Budget
from ..planning import WIDEST, growth_scores
from .console import note, progress, resumable, warn
from .host import HostOptions
from .latency import Latency
from .models import LoadedModel
from .planned import GoalOptions, Planned

PANEL = "Growing"


@dataclass(frozen=True, kw_only=True)
class GrowOptions:
    """Whether to raise widths instead of lowering them, and how far."""

    grow: Annotated[
        bool,
        typer.Option(
            "--grow",
            help="Wider groups instead of narrower ones, at no more latency than now; --budget 105% allows 5 % more.",
            rich_help_panel=PANEL,
        ),
    ] = False
    widest: Annotated[
        float, typer.Option(help="How wide a group may become, times its width.", rich_help_panel=PANEL)
    ] = WIDEST


def make_growth(
    loaded: LoadedModel, latency: Latency, host: HostOptions, goal: GoalOptions, options: GrowOptions, *, quiet: bool
) -> tuple[Planned, list[str]]:
    """Trace, find the groups that can grow, and plan; a line for each measurement end to end, with the device at hand."""
    from ..pruning import confirmed_growth

    _refuse_pruning(host, goal)
    budget = Budget.parse(goal.budget) if goal.budget else None
    graph = loaded.trace()
    try:
        with progress("measuring what is missing", quiet=quiet) as report, resumable():
            plan, lines = confirmed_growth(
                loaded.module, graph, loaded.example(graph.input_shape[0]), latency.source, latency.timer,
                budget=budget, widest=options.widest, every=goal.every, progress=report,
            )  # fmt: skip
    except MissingLatency as error:
        raise MissingLatency(
            f"{error} Widths above the original are timed by this very command: give it --device cpu or cuda, on the machine the "
            "table is of.",
            error.shapes,
        ) from error
    for line in lines:
        note(line, quiet=quiet)
    for warning in plan.warnings:
        warn(warning, quiet=quiet)
    return Planned(graph=graph, scores=growth_scores(graph), plan=plan), lines


def gained(planned: Planned) -> str:
    """What the plan adds, in a line."""
    graph, widths = planned.graph, planned.plan.widths
    macs, parameters = (
        graph.macs_at(widths) / graph.macs_at(),
        graph.num_parameters_at(widths) / graph.num_parameters_at(),
    )
    return f"  grown: multiply-adds {macs - 1:+.1%}, parameters {parameters - 1:+.1%}"


def _refuse_pruning(host: HostOptions, goal: GoalOptions) -> None:
    plain = GoalOptions()
    steered = {
        "--policy": goal.policy != plain.policy, "--goal": goal.goal != plain.goal, "--reach": goal.reach != plain.reach,
        "--floor": goal.floor != plain.floor,
    }  # fmt: skip
    given = [*host.given, *(option for option, is_set in steered.items() if is_set)]
    if given:
        raise InvalidShape(
            f"--grow starts from the whole network and only widens it, so {' and '.join(given)} have no say; drop them. "
            "To fill a pruned network up to its edges, use --policy grow."
        )
