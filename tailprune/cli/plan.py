"""`tailprune plan`: decide the widths, look at them, save them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import RenderableType

from ..core.errors import InvalidShape
from ..planning import MACS_OF_A_CHANNEL, explain_plan
from ..reports import plan_table
from .console import PANEL, OutputOptions, note, out, print_json, progress
from .explained import explanation_body, explanation_view
from .frontier import FrontierFiles, frontier_body, write_frontier
from .grouped import grouped
from .grown import GrowOptions, gained, make_growth
from .host import HostOptions
from .latency import LatencyOptions, open_latency
from .models import NetworkOptions, load_model
from .planned import GoalOptions, Planned, make_frontier, make_plan


@grouped
def plan(
    *,
    network: NetworkOptions,
    latency: LatencyOptions,
    host: HostOptions,
    goal: GoalOptions,
    growing: GrowOptions,
    explain: Annotated[
        bool, typer.Option("--explain", help="Why each width, and the plans beside this one.", rich_help_panel=PANEL)
    ] = False,
    frontier: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.csv",
            help="What every latency buys: this CSV, and a plot beside it (.png; name a .svg for that).",
            rich_help_panel=PANEL,
        ),
    ] = None,
    save_to: Annotated[Path | None, typer.Option("--out", "-o", help="File to write.", rich_help_panel=PANEL)] = None,
    output: OutputOptions,
) -> None:
    """Choose a width for every channel group: what a host pruner keeps, moved onto step edges; or, with --grow, wider ones.

    Example: tailprune plan -m torchvision:resnet50 -d h200 -b 32 --dtype float16 --ratio 0.45 -o plan.json
    """
    if growing.grow and (explain or frontier is not None):
        raise InvalidShape("--explain and --frontier are about pruning; drop them, or drop --grow.")
    files = FrontierFiles.named(frontier) if frontier is not None else None
    loaded = load_model(network, seed=host.seed)
    opened = open_latency(latency, quiet=output.quiet)
    if growing.grow:
        planned, measured = make_growth(loaded, opened, host, goal, growing, quiet=output.quiet)
    else:
        planned, measured = make_plan(loaded, opened, host, goal, quiet=output.quiet), []
    if save_to is not None:
        planned.plan.save(save_to)
        note(f"plan written to {save_to}", quiet=output.quiet)
    body = {**plan_body(planned, loaded.weights), **({"measured": measured} if measured else {})}
    views: list[RenderableType] = [plan_table(planned.plan)]
    if explain or files is not None:
        curve = make_frontier(planned, opened, goal, quiet=output.quiet)
        if explain:
            explanation = explain_plan(planned.plan, curve)
            body["explanation"] = explanation_body(explanation)
            views = [explanation_view(planned.plan, explanation)]
        if files is not None:
            with progress("pricing rivals", quiet=output.quiet) as report:
                marks = write_frontier(curve, planned.plan, files, report=report)
            body["frontier"] = frontier_body(curve, marks, files)
            note(f"frontier of {len(curve.points):,} plans written to {files.csv} and {files.plot}", quiet=output.quiet)
    if output.json:
        print_json(body)
    else:
        for view in views:
            out.print(view)
        print(planned.plan.summary())
        if growing.grow:
            print(gained(planned))


def plan_body(planned: Planned, weights: str) -> dict[str, Any]:
    """What `--json` prints: the host's result, ours, and under which conditions both hold."""
    plan, graph = planned.plan, planned.graph

    def at(widths: Mapping[str, int]) -> dict[str, Any]:
        return {"macs": graph.macs_at(widths), "parameters": graph.num_parameters_at(widths), "widths": widths}

    original = {choice.group: choice.original for choice in plan.choices}
    by_weights = plan.scores_method != MACS_OF_A_CHANNEL
    nothing_means = ["weights are random, so the scores mean nothing"] if weights == "random" and by_weights else []
    return {
        "model": plan.model,
        "weights": weights,
        "batch": plan.input_shape[0],
        "dtype": plan.dtype,
        "memory_format": plan.memory_format,
        "policy": plan.policy,
        "goal": plan.goal,
        "reach": plan.reach,
        "original": {"latency_us": plan.original_us, **at(original)},
        "host": {"latency_us": plan.host_us, "importance": plan.host_importance, **at(plan.host_widths)},
        "plan": {
            "predicted_us": plan.predicted_us,
            "importance": plan.importance,
            **at(plan.widths),
            "moved": len(plan.moved),
            "groups": len(plan.choices),
        },
        "budget_us": plan.budget_us,
        "solver": plan.solver,
        "status": plan.status,
        "optimality_gap": plan.optimality_gap,
        "latency_kind": plan.latency_kind,
        "latency_origin": plan.latency_origin,
        "untraced": list(graph.untraced),
        "warnings": [*nothing_means, *plan.warnings],
        "versions": dict(plan.versions),
    }
