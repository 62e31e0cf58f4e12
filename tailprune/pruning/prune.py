"""From a model to a smaller one in one call, for those who bring no pipeline."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import nn

from ..core.errors import InvalidShape
from ..core.graph import ModelGraph
from ..core.plan import Budget, WidthPlan
from ..core.protocols import LatencySource, LayerTimer
from ..core.scores import ChannelScores
from ..filling import fill_table, measure_chosen, plan_shapes
from ..planning import Goal, Policy, Scope, choose_host, plan_widths
from ..tables import LatencyTable
from ..tracing import trace_model
from .apply import apply_plan
from .importance import score_channels
from .pipelines import check_ratio


def prune_model(
    model: nn.Module,
    example_inputs: Any,
    *,
    latency: LatencySource | None = None,
    timer: LayerTimer | None = None,
    host: ChannelScores | None = None,
    ratio: float | None = None,
    importance: str = "magnitude",
    scope: Scope = "global",
    policy: Policy = "snap",
    goal: Goal | None = None,
    reach: int = 1,
    budget: Budget | None = None,
    dtype: str | None = None,
    seed: int = 0,
) -> tuple[nn.Module, WidthPlan]:
    """What does this model look like without its least important channels, on this device's step edges?

    Traces, scores, lets an unrounded host prune `ratio` of the channels (default 0.5), plans from there, and returns a
    pruned copy with its plan; `model` is untouched. `latency` is any source, `timer` measures what a table lacks (alone:
    into a table of this process), `dtype` is what the network will run in (default: the model's). The steps one by one
    are `trace_model`, `score_channels`, `choose_host`, `plan_widths`, `apply_plan`.

    With `host`, the choice of another pipeline (`host_from_widths`, `host_from_masks`, `host_from_zeros`, `host_from_scores`)
    is the one to start from; `ratio`, `importance`, `scope` and `seed` belong to the built-in host and are not used then.

    Raises InvalidShape without latency and timer, for a ratio of 1, for a ratio beside a host, and for a host's choice that
    is of another network.

    >>> import torch
    >>> from tailprune.waves import WaveModel, load_device
    >>> net = nn.Sequential(nn.Conv2d(3, 32, 3), nn.ReLU(), nn.Conv2d(32, 4, 3))
    >>> small, plan = prune_model(net, torch.zeros(1, 3, 16, 16), latency=WaveModel(load_device("h200")))
    >>> net[0].out_channels, small[0].out_channels == plan.widths["0"]
    (32, True)
    """
    if host is not None and ratio is not None:
        raise InvalidShape("A host has chosen its channels already, so ratio= has no say; give one of the two.")
    if ratio is not None:
        check_ratio(ratio)
    graph = trace_model(model, example_inputs, dtype=dtype)
    source, timer = source_for(latency, timer)
    if host is not None:
        scores = host
        _check_host(graph, host)
    else:
        scored = score_channels(model, graph, importance, seed=seed, example_inputs=example_inputs)
        scores = choose_host(scored, 0.5 if ratio is None else ratio, scope=scope)

    def decide(source: LatencySource) -> WidthPlan:
        return plan_widths(graph, scores, latency=source, policy=policy, goal=goal, reach=reach, budget=budget)

    if isinstance(source, LatencyTable) and timer is not None:
        fill_table(source, graph, timer)
        plan = measure_chosen(source, timer, decide, partial(plan_shapes, graph))
    else:
        plan = decide(source)
    return apply_plan(model, plan, example_inputs), plan


def source_for(latency: LatencySource | None, timer: LayerTimer | None) -> tuple[LatencySource, LayerTimer | None]:
    """The latencies and the timer given; or an empty table of this process and the timer to fill it."""
    if latency is not None:
        return latency, timer
    if timer is None:
        raise InvalidShape(
            "A latency source or a timer is needed: pass latency= (a table or a model), timer=, or both."
        )
    return LatencyTable.in_memory(timer.environment), timer


def _check_host(graph: ModelGraph, host: ChannelScores) -> None:
    for group in host.groups:
        if graph.widths.get(group.group) != group.width:
            raise InvalidShape(
                f"This host is of another network: it has {group.width} channels in group {group.group}, {graph.model} has "
                f"{graph.widths.get(group.group, 'no such group')}. Make it from a graph of this model."
            )
