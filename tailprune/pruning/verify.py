"""Is a pruned network really the dense one without those channels?"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ..core.plan import WidthPlan
from ..tracing import ChannelDependency, copy_without_masks
from .apply import inputs_like, removed_channels
from .importance import BatchNorm, Convolution

#: Both networks run in float64, where summing in another order moves a result by about 1e-15 of its size a layer.
TOLERANCE = 1e-9
#: Widening shares weights out among copies: their sum is the old weight up to a rounding in the model's own dtype, float32
#: here, a layer after another.
WIDENED_TOLERANCE = 1e-5
#: What a pruned network is compared with.
ZEROED = "the dense network with those channels zeroed"
#: Norms over channels see how many there are: without some, what stays changes too.
CHANNEL_NORMS = (nn.LayerNorm, nn.GroupNorm, nn.LocalResponseNorm)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """`wrong_widths` and `error` (the largest difference of outputs over the largest output) are facts; `ok` judges them.

    `error` is None where zeroed and removed channels are different things: `reason` says which norm makes them so.
    """

    wrong_widths: tuple[str, ...]
    error: float | None
    reason: str = ""
    tolerance: float = TOLERANCE
    compared_with: str = ZEROED

    @property
    def ok(self) -> bool:
        return not self.wrong_widths and (self.error is None or self.error <= self.tolerance)

    def __str__(self) -> str:
        if self.wrong_widths:
            return "the network does not have the plan's widths: " + "; ".join(self.wrong_widths)
        if self.error is None:
            return f"widths equal the plan; outputs not compared: {self.reason}"
        verdict = "equals" if self.ok else "DIFFERS from"
        return f"widths equal the plan; output {verdict} {self.compared_with} (relative error {self.error:.1e})"


def verify_pruned(model: nn.Module, pruned: nn.Module, plan: WidthPlan, example_inputs: Any = None) -> Verification:
    """Has `pruned` the plan's widths, and does it compute what `model` computes with the removed channels zeroed?

    A widened network computes that, too: copies of channels change nothing but rounding.

    The zeroing shares no step with the pruning: on a copy of `model` the filters that produce a removed channel, and
    its norms' scale and shift, are set to 0, and the output of that unpruned network is compared, in float64. Holds for
    activations with f(0) = 0 (or a zeroed factor behind them), that is for the CNNs of torchvision.
    """
    inputs = inputs_like(model, plan.input_shape) if example_inputs is None else example_inputs
    dependency = ChannelDependency(model, inputs)
    removed = {choice.group: removed_channels(dependency, plan, choice.group) for choice in plan.choices}
    wrong = tuple(_wrong_widths(dependency, pruned, plan, removed))
    norms = _channel_norms(dependency, removed)
    if wrong or norms:
        reason = f"{norms[0]} normalises over the channels themselves" if norms else "the widths differ"
        return Verification(wrong_widths=wrong, error=None, reason=reason)
    zeroed = zero_channels(model, dependency, removed)
    images = [_random_like(x) for x in (inputs if isinstance(inputs, tuple) else (inputs,))]
    with torch.no_grad():
        expected, got = (_run(net, images) for net in (zeroed, copy.deepcopy(pruned)))
    scale = max((float(e.abs().max()) for e in expected), default=0.0) or 1.0
    error = max((float((e - g).abs().max()) for e, g in zip(expected, got, strict=True)), default=0.0) / scale
    return Verification(
        wrong_widths=(), error=error, tolerance=WIDENED_TOLERANCE if plan.grown else TOLERANCE,
        compared_with=ZEROED if any(removed.values()) else "the original network",
    )  # fmt: skip


def zero_channels(model: nn.Module, dependency: ChannelDependency, removed: Mapping[str, Iterable[int]]) -> nn.Module:
    """A copy of the dense model in which these channels are produced as zeros."""
    zeroed = copy_without_masks(model)
    modules, parameters = dict(zeroed.named_modules()), dict(zeroed.named_parameters())
    with torch.no_grad():
        for group_id, channels in removed.items():
            gone = set(channels)
            for member in dependency.group(group_id).members:
                if member.side == "in":
                    continue
                rows = [i for i, c in zip(member.indices, member.channels, strict=True) if c in gone]
                module: Any = modules.get(member.module)
                if module is None:
                    parameters[member.module].view(-1)[rows] = 0
                elif isinstance(module, (Convolution, nn.Linear, BatchNorm)):
                    _zero_rows(module, rows)
    return zeroed


def _zero_rows(module: Any, rows: list[int]) -> None:
    if isinstance(module, BatchNorm) and module.weight is None:  # no scale to zero: its input is zero, so is its mean
        module.running_mean[rows] = 0
        return
    weight = module.weight.transpose(0, 1) if getattr(module, "transposed", False) else module.weight
    weight[rows] = 0
    if module.bias is not None:
        module.bias[rows] = 0


def _wrong_widths(
    dependency: ChannelDependency, pruned: nn.Module, plan: WidthPlan, removed: Mapping[str, tuple[int, ...]]
) -> Iterable[str]:
    dense, small = dict(dependency.model.named_modules()), dict(pruned.named_modules())
    lost: dict[tuple[str, str], int] = {}
    for choice in plan.choices:
        gone, new = set(removed[choice.group]), choice.width - len(choice.kept)
        for member in dependency.group(choice.group).members:
            if member.module in dense:
                end, times = (member.module, member.side), len(member.channels) // choice.original
                lost[end] = lost.get(end, 0) + sum(c in gone for c in member.channels) - times * new
    for (name, side), count in lost.items():
        before, after = channels_at(dense[name], side), channels_at(small[name], side) if name in small else None
        if before is not None and after != before - count:
            yield f"{name} has {after} {side} channels instead of {before - count}"


def channels_at(module: Any, side: str) -> int | None:
    if isinstance(module, Convolution):
        return module.out_channels if side == "out" else module.in_channels
    if isinstance(module, nn.Linear):
        return module.out_features if side == "out" else module.in_features
    return module.num_features if isinstance(module, BatchNorm) else None


def _channel_norms(dependency: ChannelDependency, removed: Mapping[str, tuple[int, ...]]) -> list[str]:
    modules = dict(dependency.model.named_modules())
    cut = [dependency.group(group_id) for group_id, channels in removed.items() if channels]
    return [m.module for group in cut for m in group.members if isinstance(modules.get(m.module), CHANNEL_NORMS)]


def _random_like(value: Any) -> Any:
    if not isinstance(value, torch.Tensor) or not value.is_floating_point():
        return value
    generator = torch.Generator().manual_seed(0)
    return torch.randn(value.shape, generator=generator, dtype=torch.float64).to(value.device)


def _run(net: nn.Module, images: list[Any]) -> list[torch.Tensor]:
    """Every float tensor the network returns, in evaluation mode and float64."""
    found: list[torch.Tensor] = []
    pending = [net.double().eval()(*images)]
    while pending:
        value = pending.pop()
        if isinstance(value, torch.Tensor):
            found.append(value)
        elif isinstance(value, dict):
            pending += value.values()
        elif isinstance(value, (list, tuple)):
            pending += value
    return found
