"""From a name in a config to a network, with trained weights where there are any."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from torch import nn
from torchvision.models import mobilenet_v2, resnet50

from recipes.errors import RecipeError
from recipes.models import cifar_resnet
from recipes.models.cifar_resnet import CifarResNet, spell_out_shortcuts
from recipes.models.mobilenet import mobilenet_v2_32
from recipes.models.weights import load_weights

BUILDERS: dict[str, Callable[..., nn.Module]] = {
    **{f"resnet{depth}-cifar": getattr(cifar_resnet, f"resnet{depth}") for depth in (20, 32, 44, 56, 110)},
    "mobilenet-v2-cifar": mobilenet_v2_32,
    "resnet50": resnet50,
    "mobilenet-v2": mobilenet_v2,
}


def build_model(name: str, *, num_classes: int, weights: str | Path | None = None) -> nn.Module:
    """The named network. Padded shortcuts are spelled out after loading, so that every channel group can be pruned.

    `weights` is a file of plain tensors, or `torchvision` for the published ImageNet weights, which torchvision downloads.
    """
    if name not in BUILDERS:
        raise RecipeError(f"Unknown model {name!r}; allowed: {', '.join(BUILDERS)}.")
    if str(weights) == "torchvision":
        if name.endswith("-cifar") or num_classes != 1000:
            raise RecipeError(
                f"torchvision has no weights of {name} for {num_classes} classes; pass a file, or train from random weights."
            )
        return BUILDERS[name](weights="DEFAULT")
    model = BUILDERS[name](num_classes=num_classes)
    if weights is not None:
        load_weights(model, weights)
    return spell_out_shortcuts(model) if isinstance(model, CifarResNet) else model


def output_layers(model: nn.Module) -> list[nn.Module]:
    """What no pruner may narrow: the classifier's outputs are the classes."""
    linear: list[nn.Module] = [module for module in model.modules() if isinstance(module, nn.Linear)]
    return linear[-1:]
