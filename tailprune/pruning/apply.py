"""From a plan to a smaller network."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ..core.errors import PlanMismatch
from ..core.plan import WidthPlan
from ..tracing import ChannelDependency, copy_without_masks, trace_model
from .layout import layouts_kept


def apply_plan(model: nn.Module, plan: WidthPlan, example_inputs: Any = None) -> nn.Module:
    """What does the model look like at the plan's widths?

    Returns a copy in which every group holds exactly the plan's kept channels, weights and norms alike, in the memory
    format they had; the given model is untouched. Masks of `torch.nn.utils.prune` are settled in the copy: what was masked and stays, is zero.
    `example_inputs` are needed only for models that take more than one image tensor.

    Raises PlanMismatch for a plan made for another network, or for other widths of this one, and for one that widens a
    group past the original (`widen_model` applies those).
    """
    pruned = copy_without_masks(model)
    prune_in_place(pruned, plan, example_inputs)
    return pruned


def prune_in_place(model: nn.Module, plan: WidthPlan, example_inputs: Any = None) -> None:
    """`apply_plan` on the model itself. Checks everything it can before the first channel leaves."""
    inputs = inputs_like(model, plan.input_shape) if example_inputs is None else example_inputs
    plan.check(trace_model(model, inputs, name=plan.model))
    if plan.grown:
        first = plan.grown[0]
        raise PlanMismatch(
            f"This plan widens {first.group} from {first.original} to {first.width} channels, and apply_plan and prune_in_place "
            "only remove channels. Use tailprune.widen_model(model, plan), which returns a copy."
        )
    _remove(model, plan, inputs)


def pruned_copy(model: nn.Module, plan: WidthPlan, example_inputs: Any) -> nn.Module:
    """`apply_plan` for a plan just made for this very model: nothing is checked again."""
    pruned = copy_without_masks(model)
    _remove(pruned, plan, example_inputs)
    return pruned


def _remove(model: nn.Module, plan: WidthPlan, example_inputs: Any) -> None:
    dependency = ChannelDependency(model, example_inputs)
    trainable = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    with layouts_kept(model):
        for group in dependency.groups:  # in the model's order: a grouped convolution's inputs leave before its outputs
            if group.id in plan.by_group:
                dependency.remove(group.id, removed_channels(dependency, plan, group.id))
    for name, parameter in model.named_parameters():  # Torch-Pruning's cut parameters are all trainable
        parameter.requires_grad_(trainable[name])


def removed_channels(dependency: ChannelDependency, plan: WidthPlan, group_id: str) -> tuple[int, ...]:
    """The group's channels that the plan drops, as output channels of the group's root layer."""
    kept = set(plan.by_group[group_id].kept)
    return tuple(channel for i, channel in enumerate(dependency.group(group_id).channels) if i not in kept)


def inputs_like(model: nn.Module, shape: tuple[int, ...]) -> torch.Tensor:
    """A zero image batch of this shape, where the model's parameters live."""
    parameter = next(model.parameters(), torch.zeros(()))
    return torch.zeros(shape, dtype=parameter.dtype, device=parameter.device)
