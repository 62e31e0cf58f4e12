"""How much wider can a network be at no more latency? Widths between two step edges are paid for already."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection

from ..core.errors import InvalidShape, NoPlan
from ..core.graph import ChannelGroup, ModelGraph
from ..core.plan import Budget, WidthPlan
from ..core.protocols import LatencySource
from ..core.scores import ChannelScores, GroupScores
from .planner import plan_widths

#: How wide a group may become, as a multiple of its width: what one may want of a network that stays itself.
WIDEST = 1.5
#: What growing scores channels by: `WidthPlan.scores_method` of its plans.
MACS_OF_A_CHANNEL = "multiply-adds of a channel"


def plan_growth(
    graph: ModelGraph,
    latency: LatencySource,
    *,
    growable: Collection[str] | None = None,
    budget: Budget | None = None,
    widest: float = WIDEST,
    every: int | None = None,
    time_limit_s: float = 10.0,
) -> WidthPlan:
    """Which groups can be wider at no more latency, and by how much?

    `plan_widths` with the policy `grow`, over every undominated step edge from the original width w to `widest` x w:

        maximise   V(k) = sum over groups of  k_g x m_g       with  T(k) <= T(w), or at most the budget

    where m_g are the multiply-adds that one channel of the group adds, the others at their original widths
    (`growth_scores`): what an untrained channel will be worth nobody knows, what it can compute is known. `plan.importance`
    is V(k) / V(w). Groups that are not `growable` (all prunable ones by default; `tailprune.growable_groups` knows what
    `widen_model` can widen) stay as they are. With `every`, all multiples of it are allowed, edge or not: for narrow groups on
    a noisy device, whose edges no detection is sure of. The plan is never slower than the original, by `latency`.

    Raises InvalidShape for a `widest` below 1, NoPlan for a budget below the original's latency that no wider network keeps
    either (some do: odd widths can be slower than the next round one).

    >>> from tailprune.core.graph import Layer, WidthExpr
    >>> from tailprune.core.shapes import LayerShape
    >>> from tailprune.waves import WaveModel, load_device
    >>> shape = LayerShape(op="conv", batch=1, in_channels=512, out_channels=1000, in_hw=(7, 7), dtype="float16")
    >>> layer = Layer(name="conv", shape=shape, in_expr=WidthExpr(constant=512), out_expr=WidthExpr(terms=(("conv", 1),)))
    >>> graph = ModelGraph(model="one", layers=(layer,), groups=(ChannelGroup(id="conv", width=1000),), input_shape=(1, 512, 7, 7))
    >>> plan = plan_growth(graph, WaveModel(load_device("h200")), budget=Budget.fraction(1.02))
    >>> plan.policy, plan.widths["conv"] > 1000, plan.predicted_us <= 1.02 * plan.original_us
    ('grow', True, True)
    """
    wide = widest_graph(graph, growable=growable, widest=widest)
    try:
        return plan_widths(
            graph,
            growth_scores(graph),
            latency=latency,
            policy="grow",
            reach=max(wide.widths.values(), default=1),  # as many steps as there can be: `widest` bounds them
            budget=budget,
            max_widths=wide.widths,
            frozen=[group for group, width in graph.widths.items() if wide.widths[group] == width],
            every=every,
            time_limit_s=time_limit_s,
        )
    except NoPlan as error:
        raise NoPlan(
            f"No network at least as wide as {graph.model} was found within the budget, and growing only widens it. Raise the budget to "
            f"100% or more, or prune. ({error})"
        ) from error


def growth_scores(graph: ModelGraph) -> ChannelScores:
    """Each channel's score is the multiply-adds that one more like it adds; one scope, since they compare."""
    groups = tuple(
        GroupScores(group=g.id, scores=(_macs_of_channel(graph, g),) * g.width, scope="network", granule=g.granule)
        for g in graph.prunable_groups
        if graph.layers_of(g.id)
    )
    return ChannelScores(groups=groups, method=MACS_OF_A_CHANNEL)


def widest_graph(graph: ModelGraph, *, growable: Collection[str] | None = None, widest: float = WIDEST) -> ModelGraph:
    """The network with every group that may grow as wide as it may become, and its present width as the least.

    Its lines are those that growing asks about: `fill_table(table, widest_graph(graph), timer, widths=graph.widths)`.
    """
    if not 1 <= widest < math.inf:
        raise InvalidShape(f"widest must be a finite multiple of the original widths, at least 1, got {widest!r}.")
    allowed = {g.id for g in graph.prunable_groups} if growable is None else {graph.group(g).id for g in growable}
    groups = tuple(
        dataclasses.replace(g, width=int(widest * g.width) // g.granule * g.granule, min_width=g.width)
        if g.id in allowed
        else g
        for g in graph.groups
    )
    widths = {g.id: g.width for g in groups}
    layers = tuple(dataclasses.replace(layer, shape=layer.shape_at(widths)) for layer in graph.layers)
    return dataclasses.replace(graph, layers=layers, groups=groups)


def _macs_of_channel(graph: ModelGraph, group: ChannelGroup) -> float:
    wider = {**graph.widths, group.id: group.width + group.granule}
    layers = graph.layers_of(group.id)
    added = sum(layer.calls * (layer.shape_at(wider).macs - layer.shape.macs) for layer in layers)
    return added / group.granule
