"""Models that carry masks of `torch.nn.utils.prune`: the same network, its masks multiplied into its weights for good."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.nn.utils import prune


def masks_of(model: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """(name of the masked parameter, its mask) of every mask a model carries."""
    for name, module in model.named_modules():
        for parameter in _masked(module):
            yield f"{name}.{parameter}" if name else parameter, getattr(module, f"{parameter}_mask")


def settle_masks(model: nn.Module) -> None:
    """`prune.remove` for every mask: what was masked is zero from now on, and an ordinary parameter again."""
    with torch.inference_mode(False), torch.no_grad():
        for module in model.modules():
            for parameter in _masked(module):
                prune.remove(module, parameter)


def copy_without_masks(model: nn.Module) -> nn.Module:
    """A copy that computes the same without masks. Masked weights are no leaves, which a plain deepcopy refuses."""
    memo: dict[int, Any] = {}
    for module in model.modules():
        for value in vars(module).values():
            if isinstance(value, torch.Tensor) and not value.is_leaf:
                memo[id(value)] = value.detach().clone()
    duplicate = copy.deepcopy(model, memo)
    settle_masks(duplicate)
    return duplicate


def _masked(module: nn.Module) -> list[str]:
    hooks = module._forward_pre_hooks.values()
    return [hook._tensor_name for hook in hooks if isinstance(hook, prune.BasePruningMethod)]
