"""How much does each channel matter? Scores of a network's own weights, for those who bring no host pruner."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from ..core.errors import InvalidShape
from ..core.graph import ModelGraph
from ..core.scores import ChannelScores, GroupScores
from ..tracing import ChannelDependency
from .apply import inputs_like

Convolution = nn.modules.conv._ConvNd
BatchNorm = nn.modules.batchnorm._BatchNorm
#: value of one member: (matrix of channels x weights, its gradient or None) -> one number per channel
Measure = Callable[[torch.Tensor, "torch.Tensor | None"], torch.Tensor]


def score_channels(
    model: nn.Module, graph: ModelGraph, method: str = "magnitude", *, seed: int = 0, example_inputs: Any = None
) -> ChannelScores:
    """How much does each channel of each prunable group matter, by the network's weights (and gradients)?

    A group's channel c passes through several layers m, each with weights w(m, c): its filters where the layer produces
    c, the columns that read it where it consumes c, the scale where it is a norm. Its score is

        s(c) = mean over m of f(w(m, c)),      then divided by the mean over the group's channels

    with f: `magnitude` sum of w^2 (Torch-Pruning's default), `l1` sum of |w|, `taylor` sum of |w dw| (the model must hold
    gradients), `fpgm` the summed distance to the other channels' w^2, `bn_scale` |scale| of the norms alone;
    `lamp` is `magnitude` over the sum of all scores not smaller, and `random` is uniform from `seed`.

    Scores are finite, non-negative and comparable across groups; `example_inputs` are needed only for models that take
    more than one image tensor. Raises InvalidShape for an unknown method, weights that give no finite score, missing
    gradients, or a graph of another model.

    >>> from tailprune.tracing import trace_model
    >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3))
    >>> scores = score_channels(net, trace_model(net, torch.zeros(1, 3, 8, 8)))
    >>> [(group.group, group.width) for group in scores.groups]
    [('0', 8)]
    """
    if method not in METHODS:
        raise InvalidShape(f"Unknown importance {method!r}; allowed: {', '.join(METHODS)}.")
    dependency = dependency_of(model, graph, example_inputs)
    modules = dict(model.named_modules())
    random = torch.Generator().manual_seed(seed)
    groups, warnings = [], []
    for group in graph.prunable_groups:
        if method == "random":
            values: torch.Tensor | None = torch.rand(group.width, generator=random, dtype=torch.float64)
        else:
            values = _group_score(dependency.by_id[group.id], modules, method)
        if values is None:
            warnings.append(
                f"{group.id}: {method} finds nothing to score in its layers; the group keeps all its channels"
            )
            continue
        if group.granule > 1:  # one offset of every block leaves at once: rank by the blocks' mean, as hosts do
            values = values.view(group.granule, -1).mean(0).repeat(group.granule)
        groups.append(GroupScores(group=group.id, scores=tuple(values.tolist()), granule=group.granule))
    return ChannelScores(groups=tuple(groups), method=method, warnings=tuple(warnings))


def dependency_of(model: nn.Module, graph: ModelGraph, example_inputs: Any = None) -> ChannelDependency:
    """The channel dependency of a model that this graph was traced from. Raises InvalidShape for a graph of another model."""
    inputs = inputs_like(model, graph.input_shape) if example_inputs is None else example_inputs
    dependency = ChannelDependency(model, inputs)
    for group in graph.prunable_groups:
        if group.id not in dependency.by_id or dependency.by_id[group.id].width != group.width:
            raise InvalidShape(
                f"The graph of {graph.model} has a group {group.id} of {group.width} channels that this model has not. Trace it again."
            )
    return dependency


def _magnitude(weight: torch.Tensor, grad: torch.Tensor | None) -> torch.Tensor:
    return weight.square().sum(1)


def _l1(weight: torch.Tensor, grad: torch.Tensor | None) -> torch.Tensor:
    return weight.abs().sum(1)


def _taylor(weight: torch.Tensor, grad: torch.Tensor | None) -> torch.Tensor:
    if grad is None:
        raise InvalidShape("The importance 'taylor' needs gradients; call loss.backward() on this model first.")
    return (weight * grad).abs().sum(1)


def _distance(weight: torch.Tensor, grad: torch.Tensor | None) -> torch.Tensor:
    squares = weight.square()
    return torch.cdist(squares, squares).sum(0)


#: method -> (measure, layer types it looks at, from within a group its final scores)
METHODS: dict[str, tuple[Measure, tuple[type[nn.Module], ...]]] = {
    "magnitude": (_magnitude, (Convolution, nn.Linear, BatchNorm, nn.LayerNorm)),
    "l1": (_l1, (Convolution, nn.Linear, BatchNorm, nn.LayerNorm)),
    "taylor": (_taylor, (Convolution, nn.Linear, nn.LayerNorm)),
    "fpgm": (_distance, (Convolution, nn.Linear)),
    "bn_scale": (_l1, (BatchNorm,)),
    "lamp": (_magnitude, (Convolution, nn.Linear, BatchNorm, nn.LayerNorm)),
    "random": (_l1, ()),
}


@torch.no_grad()
def _group_score(group: Any, modules: dict[str, nn.Module], method: str) -> torch.Tensor | None:
    measure, types = METHODS[method]
    position = {channel: i for i, channel in enumerate(group.channels)}
    total, members = torch.zeros(group.width, dtype=torch.float64), 0
    for member in group.members:
        module: Any = modules.get(member.module)
        if not isinstance(module, types):
            continue
        parameter: Any = module.weight
        weight = by_channel(module, member.side, parameter)
        if weight is None:
            continue
        held = parameter.grad if parameter.is_leaf else None  # a masked weight is computed anew each time
        grad = None if held is None else by_channel(module, member.side, held)
        rows = list(member.indices)
        value = measure(weight[rows], None if grad is None else grad[rows])
        total.index_add_(0, torch.tensor([position[c] for c in member.channels]), value.double().cpu())
        members += 1
    if not members:
        return None
    total /= members
    score = _lamp(total) if method == "lamp" else total / total.mean()
    if not torch.isfinite(score).all():
        raise InvalidShape(
            f"The importance {method!r} of layer {group.id} is not finite; its weights are all zero or hold NaN. "
            "Check the weights, or choose another importance."
        )
    return score


def by_channel(module: Any, side: str, weight: torch.Tensor | None) -> torch.Tensor | None:
    """The weights as a matrix with a row per channel of this side; None where the layer has none of its own.

    Depthwise filters count for nothing, as in Torch-Pruning: the layers around them say what a channel is worth.
    """
    if weight is None:
        return None
    if not isinstance(module, Convolution):
        matrix = weight.reshape(len(weight), -1)
        return weight.t() if isinstance(module, nn.Linear) and side == "in" else matrix
    if module.groups > 1 and module.groups == module.out_channels:
        return None
    if (side == "out") != module.transposed:
        return weight.flatten(1)
    matrix = weight.transpose(0, 1).flatten(1)
    return matrix if module.groups == 1 or module.transposed else matrix.repeat(module.groups, 1)


def _lamp(scores: torch.Tensor) -> torch.Tensor:
    """Layer-adaptive magnitude (arXiv 2010.07611): a score over the sum of all that are not smaller."""
    ordered, order = scores.sort()
    share = torch.empty_like(scores)
    share[order] = ordered / ordered.flip(0).cumsum(0).flip(0)
    return share
