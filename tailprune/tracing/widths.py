"""Which widths does a pruned network have? Read from the sizes of its weights, against the dense network's graph."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import nn

from ..core.errors import PlanMismatch
from ..core.graph import Layer, ModelGraph, WidthExpr


@dataclass(frozen=True, slots=True, kw_only=True)
class _Count:
    """Channels found on one side of one layer."""

    layer: str
    side: str
    expr: WidthExpr
    channels: int


def read_widths(graph: ModelGraph, pruned: nn.Module | Mapping[str, torch.Tensor]) -> dict[str, int]:
    """What width has every channel group of `graph` in this pruned network?

    `pruned` is a module, or its state dict, of the network that `graph` was traced from before pruning. Group by group
    the width follows from layers that one unknown group feeds, and then every layer is checked.

    Raises PlanMismatch naming the first layer that is absent or that fits no width, and a group that no layer tells.

    >>> from tailprune.tracing import trace_model
    >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 3))
    >>> graph = trace_model(net, torch.zeros(1, 3, 8, 8))
    >>> read_widths(graph, nn.Sequential(nn.Conv2d(3, 5, 3), nn.Conv2d(5, 4, 3)))
    {'0': 5, '1': 4}
    """
    state = pruned.state_dict() if isinstance(pruned, nn.Module) else pruned
    counts = [count for layer in graph.layers for count in _counts(graph, layer, state)]
    widths: dict[str, int] = {}
    waiting = counts
    while waiting:
        told = [count for count in waiting if len(set(count.expr.groups) - widths.keys()) == 1]
        if not told:
            break
        for count in told:
            unknown = set(count.expr.groups) - widths.keys()
            if unknown:
                widths |= _solve(graph, count, unknown.pop(), widths)
        waiting = [count for count in waiting if set(count.expr.groups) - widths.keys()]
    for group in graph.groups:
        if group.id not in widths:
            raise PlanMismatch(
                f"The width of group {group.id} of {graph.model} cannot be read: no layer's weights tell it. Give a plan file instead."
            )
    for count in counts:
        if count.expr.at(widths) != count.channels:
            raise _misfit(graph, count, f"its neighbours make that {count.expr.at(widths):,}")
    return {group.id: widths[group.id] for group in graph.groups}


def _counts(graph: ModelGraph, layer: Layer, state: Mapping[str, torch.Tensor]) -> Iterator[_Count]:
    if layer.shape.op not in ("conv", "linear", "attention"):
        return
    module = layer.name.split(":")[0]  # one module in two shapes is two layers, the second with a number
    key = f"{module}.{'in_proj_weight' if layer.shape.op == 'attention' else 'weight'}"
    if key not in state:
        raise PlanMismatch(
            f"The pruned network has no {key}, so it is not {graph.model} with fewer channels. Give the checkpoint of that model."
        )
    size = tuple(state[key].shape)
    if len(size) < 2:
        raise PlanMismatch(
            f"{key} has {len(size)} dimension{'s' * (len(size) != 1)} in the pruned network, and a layer's weights have at least 2, so it is not {graph.model}."
        )
    conv_groups = layer.shape.conv_groups
    if layer.shape.op == "attention":
        sides = {"in": size[1], "out": size[1]}
    elif layer.shape.depthwise:
        sides = {"in": size[0], "out": size[0]}
    else:
        sides = {"in": size[1] * (conv_groups if layer.shape.op == "conv" else 1), "out": size[0]}
    yield _Count(layer=layer.name, side="in", expr=layer.in_expr, channels=sides["in"])
    yield _Count(layer=layer.name, side="out", expr=layer.out_expr, channels=sides["out"])


def _solve(graph: ModelGraph, count: _Count, unknown: str, widths: Mapping[str, int]) -> dict[str, int]:
    times = dict(count.expr.terms)[unknown]
    width, rest = divmod(count.channels - count.expr.at({**widths, unknown: 0}), times)
    granule = graph.group(unknown).granule
    if rest or width < 1 or width % granule:
        multiple = f"a multiple of {granule}" if granule > 1 else "a whole number of at least 1"
        raise _misfit(graph, count, f"they are {count.expr}, and {unknown} must be {multiple}")
    return {unknown: width}


def _misfit(graph: ModelGraph, count: _Count, why: str) -> PlanMismatch:
    return PlanMismatch(
        f"Layer {count.layer} has {count.channels:,} {count.side}put channels in the pruned network, which fits no widths of "
        f"{graph.model}: {why}. Give the checkpoint of that model."
    )
