"""`tailprune plan`: decide the widths, look at them, save them."""

from __future__ import annotations

from typing import Any

from ..core.plan import WidthPlan
from ..reports import plan_table
from . import options as o
from .console import note, out, print_json
from .latency import open_latency
from .models import load_model
from .planned import Planned, make_plan


def plan(
    model: o.Model,
    device: o.Device = None,
    table: o.Table = None,
    ratio: o.Ratio = None,
    widths: o.Widths = None,
    from_zeros: o.FromZeros = None,
    scope: o.Scope = "global",
    importance: o.Importance = "magnitude",
    goal: o.Goal = "faster",
    reach: o.Reach = 1,
    policy: o.Policy = "snap",
    budget: o.BudgetText = None,
    weights: o.Weights = None,
    input_shape: o.InputShape = None,
    batch: o.Batch = 1,
    dtype: o.Dtype = "float32",
    memory_format: o.MemoryFormat = "channels_last",
    threads: o.Threads = 1,
    seed: o.Seed = 0,
    save_to: o.Out = None,
    quiet: o.Quiet = False,
    json: o.Json = False,
) -> None:
    """Choose a width for every channel group: what a host pruner keeps, moved onto step edges.

    Example: tailprune plan -m torchvision:resnet50 -d h200 -b 32 --dtype float16 --ratio 0.45 -o plan.json
    """
    latency = open_latency(device=device, table=table, threads=threads, quiet=quiet)
    loaded = load_model(
        model,
        weights=weights,
        input_shape=input_shape,
        batch=batch,
        dtype=dtype,
        memory_format=memory_format,
        seed=seed,
    )
    planned = make_plan(
        loaded, latency, importance=importance, ratio=ratio, widths=widths, from_zeros=from_zeros, scope=scope, seed=seed, policy=policy, goal=goal, reach=reach, budget=budget, quiet=quiet
    )  # fmt: skip
    if save_to is not None:
        planned.plan.save(save_to)
        note(f"plan written to {save_to}", quiet=quiet)
    if json:
        print_json(plan_body(planned, loaded.weights))
    else:
        out.print(plan_table(planned.plan))
        print(planned.plan.summary())


def plan_body(planned: Planned, weights: str) -> dict[str, Any]:
    """What `--json` prints: the host's result, ours, and under which conditions both hold."""
    plan, graph = planned.plan, planned.graph
    return {
        "model": plan.model,
        "weights": weights,
        "batch": plan.input_shape[0],
        "dtype": plan.dtype,
        "memory_format": plan.memory_format,
        "policy": plan.policy,
        "goal": plan.goal,
        "reach": plan.reach,
        "original": {"latency_us": plan.original_us, "macs": graph.macs_at(), "parameters": graph.num_parameters_at(), "widths": _originals(plan)},
        "host": {"latency_us": plan.host_us, "importance": plan.host_importance, "macs": graph.macs_at(plan.host_widths), "parameters": graph.num_parameters_at(plan.host_widths), "widths": plan.host_widths},
        "plan": {"predicted_us": plan.predicted_us, "importance": plan.importance, "macs": graph.macs_at(plan.widths), "parameters": graph.num_parameters_at(plan.widths), "widths": plan.widths, "moved": len(plan.moved), "groups": len(plan.choices)},
        "budget_us": plan.budget_us,
        "solver": plan.solver,
        "status": plan.status,
        "optimality_gap": plan.optimality_gap,
        "latency_kind": plan.latency_kind,
        "latency_origin": plan.latency_origin,
        "untraced": list(graph.untraced),
        "warnings": [*(["weights are random, so the scores mean nothing"] if weights == "random" else []), *plan.warnings],
        "versions": dict(plan.versions),
    }  # fmt: skip


def _originals(plan: WidthPlan) -> dict[str, int]:
    return {choice.group: choice.original for choice in plan.choices}
