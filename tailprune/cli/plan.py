"""`tailprune plan`: decide the widths, look at them, save them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from ..reports import plan_table
from .console import PANEL, OutputOptions, note, out, print_json
from .grouped import grouped
from .host import HostOptions
from .latency import LatencyOptions, open_latency
from .models import NetworkOptions, load_model
from .planned import GoalOptions, Planned, make_plan


@grouped
def plan(
    *,
    network: NetworkOptions,
    latency: LatencyOptions,
    host: HostOptions,
    goal: GoalOptions,
    save_to: Annotated[Path | None, typer.Option("--out", "-o", help="File to write.", rich_help_panel=PANEL)] = None,
    output: OutputOptions,
) -> None:
    """Choose a width for every channel group: what a host pruner keeps, moved onto step edges.

    Example: tailprune plan -m torchvision:resnet50 -d h200 -b 32 --dtype float16 --ratio 0.45 -o plan.json
    """
    opened = open_latency(latency, quiet=output.quiet)
    loaded = load_model(network, seed=host.seed)
    planned = make_plan(loaded, opened, host, goal, quiet=output.quiet)
    if save_to is not None:
        planned.plan.save(save_to)
        note(f"plan written to {save_to}", quiet=output.quiet)
    if output.json:
        print_json(plan_body(planned, loaded.weights))
    else:
        out.print(plan_table(planned.plan))
        print(planned.plan.summary())


def plan_body(planned: Planned, weights: str) -> dict[str, Any]:
    """What `--json` prints: the host's result, ours, and under which conditions both hold."""
    plan, graph = planned.plan, planned.graph

    def at(widths: Mapping[str, int]) -> dict[str, Any]:
        return {"macs": graph.macs_at(widths), "parameters": graph.num_parameters_at(widths), "widths": widths}

    original = {choice.group: choice.original for choice in plan.choices}
    nothing_means = ["weights are random, so the scores mean nothing"] if weights == "random" else []
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
