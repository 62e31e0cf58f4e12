"""From a plan to a wider network that computes the same: Net2Wider (Chen, Goodfellow & Shlens, arXiv 1511.05641)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..core.errors import PlanMismatch, TraceError
from ..core.graph import ChannelGroup
from ..core.plan import WidthPlan
from ..tracing import ChannelDependency, CoupledChannels, Member, trace_model
from .apply import inputs_like, pruned_copy
from .layout import layouts_kept

#: What holds a value per channel and keeps its channels apart: a copied channel passes it as the original does.
PER_CHANNEL = (nn.modules.batchnorm._BatchNorm, nn.modules.instancenorm._InstanceNorm, nn.PReLU)
#: A copy takes between a third and three times the share of another one: equal shares would keep copies equal in training.
UNEVENNESS = 3.0

#: The channels of one end of one module from now on, each as the channel it is a copy of.
Order = list[int]


def widen_model(model: nn.Module, plan: WidthPlan, example_inputs: Any = None, *, seed: int = 0) -> nn.Module:
    """What does the model look like at the plan's widths, where some exceed the original, and computes the same?

    Returns a copy; the given model is untouched. Groups that the plan narrows lose channels as in `apply_plan`. A group of
    W kept channels that the plan widens to W' gets W' - W copies of channels drawn by `seed`: everything that produces or keeps
    channel c produces its copies alike, and what reads it shares its weights out among them,

        w(c) x(c) = sum over copies i of  a_i w(c) x(c),       a_i > 0, sum of a_i = 1, drawn unevenly

    so that outputs are equal up to rounding, in training mode too, while gradients of copies differ. With a granule, each
    block grows by the same number, from its own channels. Optimizers know nothing of new parameters: make them afterwards.

    Raises PlanMismatch for a plan of another network, and TraceError where a group cannot grow without changing what the
    network computes: its channels are the output, are normalised over, or enter attention.

    """
    inputs = inputs_like(model, plan.input_shape) if example_inputs is None else example_inputs
    graph = trace_model(model, inputs, name=plan.model)
    plan.check(graph)
    dependency, modules = ChannelDependency(model, inputs), _named(model)
    for choice in plan.choices:
        obstacle = _obstacle(graph.group(choice.group), dependency.group(choice.group), modules)
        if choice.width > choice.original and obstacle:
            raise TraceError(
                f"Group {choice.group} cannot be widened: {obstacle}. Leave it at {choice.original} channels (frozen)."
            )
        if choice.width % graph.group(choice.group).granule:
            raise PlanMismatch(
                f"Group {choice.group} cannot have {choice.width} channels: they must be a multiple of "
                f"{graph.group(choice.group).granule}."
            )
    return copy_at(model, plan, inputs, seed=seed)


def copy_at(model: nn.Module, plan: WidthPlan, example_inputs: Any, *, seed: int = 0) -> nn.Module:
    """The model at the plan's widths, narrower or wider, for a plan just made for it: nothing is checked again."""
    copy = pruned_copy(model, plan, example_inputs)
    if plan.grown:
        with layouts_kept(copy):
            _grow(copy, plan.widths, example_inputs, torch.Generator().manual_seed(seed))
    return copy


def growable_groups(model: nn.Module, example_inputs: Any) -> tuple[str, ...]:
    """Ids of the channel groups that `widen_model` can widen; give the others to `plan_widths` as `frozen`.

    >>> net = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.Conv2d(6, 4, 3), nn.GroupNorm(2, 4), nn.Conv2d(4, 2, 1))
    >>> growable_groups(net, torch.zeros(1, 3, 8, 8))
    ('0',)
    """
    dependency, modules = ChannelDependency(model, example_inputs), _named(model)
    groups = trace_model(model, example_inputs).groups
    return tuple(group.id for group in groups if not _obstacle(group, dependency.group(group.id), modules))


def _grow(model: nn.Module, widths: Mapping[str, int], example_inputs: Any, generator: torch.Generator) -> None:
    dependency, modules = ChannelDependency(model, example_inputs), _named(model)
    behind: dict[tuple[str, str], dict[int, list[int]]] = {}  # end -> channel -> copies that follow it
    for group in dependency.groups:
        new = widths.get(group.id, 0) - group.width
        if new > 0:
            offsets = _drawn(group.width // group.granule, new // group.granule, generator)
            for member in group.members:
                behind.setdefault((member.module, member.side), {}).update(_copies(group, member, offsets))
    orders = {end: _order(modules[end[0]], end[1], copies) for end, copies in behind.items()}
    with torch.no_grad():
        for (name, side), order in sorted(orders.items(), key=lambda item: item[0][1]):  # "in" before "out"
            target = modules[name]
            if isinstance(target, nn.Parameter):
                _replace(model, name, target.index_select(_axis(target), _index(order, target)))
            elif side == "in":
                _widen_inputs(target, order, generator)
            else:
                _widen_outputs(target, order)


def _named(model: nn.Module) -> dict[str, Any]:
    return {**dict(model.named_parameters()), **dict(model.named_modules())}


def _obstacle(group: ChannelGroup, coupled: CoupledChannels, modules: Mapping[str, Any]) -> str:
    """Why copies of the group's channels would change what the network computes; empty if they would not."""
    if not group.prunable:
        return group.reason
    known = (nn.modules.conv._ConvNd, nn.Linear, nn.Parameter, *PER_CHANNEL)
    for name in (member.module for member in coupled.members if not isinstance(modules[member.module], known)):
        return f"{name} is a {type(modules[name]).__name__}, whose result on each channel depends on the others"
    return ""


def _drawn(block: int, new: int, generator: torch.Generator) -> list[int]:
    """Which of a block's channels are copied: at random, none a second time before all were once."""
    rounds = [torch.randperm(block, generator=generator).tolist() for _ in range(-(-new // block))]
    return [offset for one in rounds for offset in one][:new]


def _copies(group: CoupledChannels, member: Member, offsets: Sequence[int]) -> dict[int, list[int]]:
    """Channel of this end -> the channels copied right behind it: behind each block of the group, wherever the end has it.

    Flattened pixels are as many channels in a row, and are copied together.
    """
    block = group.width // group.granule
    place = {channel: i for i, channel in enumerate(group.channels)}
    at = sorted((index, place[channel]) for index, channel in zip(member.indices, member.channels, strict=True))
    found: dict[int, list[int]] = {}
    run: dict[int, list[int]] = {}
    for i, (index, here) in enumerate(at):
        run.setdefault(here % block, []).append(index)
        following = at[i + 1][1] if i + 1 < len(at) else -1
        if following < here or following // block != here // block:
            if sorted(run) != list(range(block)):
                raise TraceError(
                    f"Group {group.id} cannot be widened: {member.module} has its channels in another order."
                )
            found[index] = [copy for offset in offsets for copy in run[offset]]
            run = {}
    return found


def _order(target: Any, side: str, copies: Mapping[int, Sequence[int]]) -> Order:
    count = target.shape[_axis(target)] if isinstance(target, nn.Parameter) else _count(target, side)
    return [channel for i in range(count) for channel in (i, *copies.get(i, ()))]


def _count(module: Any, side: str) -> int:
    if isinstance(module, nn.modules.conv._ConvNd):
        return module.in_channels if side == "in" else module.out_channels
    if isinstance(module, nn.Linear):
        return module.in_features if side == "in" else module.out_features
    return module.num_parameters if isinstance(module, nn.PReLU) else module.num_features


def _widen_outputs(module: Any, order: Order) -> None:
    for name in ("weight", "bias", "running_mean", "running_var"):
        values = getattr(module, name, None)
        if values is None or (isinstance(module, nn.PReLU) and module.num_parameters == 1):
            continue
        axis = 1 if name == "weight" and getattr(module, "transposed", False) and not _depthwise(module) else 0
        _set(module, name, values.index_select(axis, _index(order, values)))
    if isinstance(module, nn.modules.conv._ConvNd):
        if _depthwise(module):
            module.in_channels = module.groups = len(order)
        module.out_channels = len(order)
    elif isinstance(module, nn.Linear):
        module.out_features = len(order)
    elif isinstance(module, nn.PReLU):
        module.num_parameters = len(order) if module.num_parameters > 1 else 1
    else:
        module.num_features = len(order)


def _widen_inputs(module: Any, order: Order, generator: torch.Generator) -> None:
    """Each reader's weights on a channel are shared out among its copies, block by block of a grouped convolution."""
    weight, conv_groups = module.weight, getattr(module, "groups", 1)
    share = _shares(order, generator).to(weight)
    axis = 0 if getattr(module, "transposed", False) else 1
    if axis == 0:
        wide = weight.index_select(0, _index(order, weight)) * share.view(-1, *[1] * (weight.dim() - 1))
    else:
        block, narrow, rows = len(order) // conv_groups, weight.shape[1], weight.shape[0] // conv_groups
        parts = []
        for g in range(conv_groups):
            mine = slice(g * block, (g + 1) * block)
            columns = [channel - g * narrow for channel in order[mine]]
            part = weight[g * rows : (g + 1) * rows].index_select(1, _index(columns, weight))
            parts.append(part * share[mine].view(1, -1, *[1] * (weight.dim() - 2)))
        wide = torch.cat(parts)
    _set(module, "weight", wide)
    if isinstance(module, nn.Linear):
        module.in_features = len(order)
    else:
        module.in_channels = len(order)


def _shares(order: Order, generator: torch.Generator) -> Tensor:
    """Positive, and 1 in sum over the copies of each channel; exactly 1 where there is one."""
    drawn = 1 + (UNEVENNESS - 1) * torch.rand(len(order), generator=generator, dtype=torch.float64)
    total: dict[int, float] = {}
    for channel, part in zip(order, drawn.tolist(), strict=True):
        total[channel] = total.get(channel, 0.0) + part
    return drawn / torch.tensor([total[channel] for channel in order], dtype=torch.float64)


def _depthwise(module: Any) -> bool:
    return bool(1 < module.groups == module.in_channels == module.out_channels)


def _axis(parameter: Tensor) -> int:
    """A bare parameter holds its channels along its longest axis."""
    return max(range(parameter.dim()), key=lambda axis: parameter.shape[axis])


def _index(order: Sequence[int], like: Tensor) -> Tensor:
    return torch.tensor(order, device=like.device)


def _set(module: nn.Module, name: str, values: Tensor) -> None:
    old = getattr(module, name)
    setattr(
        module, name, nn.Parameter(values, requires_grad=old.requires_grad) if isinstance(old, nn.Parameter) else values
    )


def _replace(model: nn.Module, name: str, values: Tensor) -> None:
    parent, _, leaf = name.rpartition(".")
    _set(model.get_submodule(parent), leaf, values)
