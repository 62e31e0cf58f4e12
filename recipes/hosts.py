"""The pipelines that tailprune wraps: Torch-Pruning's pruners, as their users build them."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice

import torch
import torch_pruning as tp
from torch import nn
from torch.nn import functional as F

from recipes.errors import RecipeError
from recipes.images import Images
from recipes.models.catalog import output_layers

#: criterion -> pruner and importance. `bn_scale` is the one to train sparsely for (network slimming, arXiv 1708.06519); `lamp` counts
#: each magnitude as a share of those not above it in its layer, so that narrow layers do not lose against wide ones (arXiv 2010.07611).
HOSTS = {
    "magnitude": (tp.pruner.MagnitudePruner, tp.importance.GroupMagnitudeImportance),
    "taylor": (tp.pruner.MagnitudePruner, tp.importance.GroupTaylorImportance),
    "bn_scale": (tp.pruner.BNScalePruner, tp.importance.BNScaleImportance),
    "lamp": (tp.pruner.MagnitudePruner, tp.importance.LAMPImportance),
}


def build_host(
    criterion: str,
    model: nn.Module,
    example: torch.Tensor,
    ratio: float,
    *,
    global_ranking: bool = True,
    ignored: Callable[[nn.Module], list[nn.Module]] = output_layers,
) -> tp.pruner.BasePruner:
    """A fresh host pruner on `model`. For `taylor` the model must hold gradients (`add_gradients`) when it steps."""
    if criterion not in HOSTS:
        raise RecipeError(f"Unknown importance {criterion!r}; allowed: {', '.join(HOSTS)}.")
    pruner, importance = HOSTS[criterion]
    return pruner(
        model,
        example,
        importance=importance(),
        global_pruning=global_ranking,
        pruning_ratio=ratio,
        ignored_layers=ignored(model),
        in_channel_groups={},  # Torch-Pruning shares its dict defaults between pruners: always pass your own
        out_channel_groups={},
        num_heads={},
        channel_groups={},
    )


def add_gradients(model: nn.Module, images: Images, *, batches: int, batch: int) -> None:
    """Gradients of the loss, summed over some training batches, in eval mode so that the network stays as it is."""
    device = next(model.parameters()).device
    model.eval().zero_grad()
    for _, (pixels, labels) in islice(enumerate(images.training_pass(batch=batch, shift=0, seed=0)), batches):
        F.cross_entropy(model(pixels.to(device)), labels.to(device)).backward()
