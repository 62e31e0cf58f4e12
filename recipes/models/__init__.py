"""Which networks do the recipes train? CIFAR ResNets, MobileNetV2 for 32x32, and torchvision's for ImageNet."""

from recipes.models.catalog import build_model
from recipes.models.cifar_resnet import (
    CifarResNet,
    resnet20,
    resnet32,
    resnet44,
    resnet56,
    resnet110,
    slim_resnet,
    spell_out_shortcuts,
)
from recipes.models.mobilenet import mobilenet_v2_32
from recipes.models.weights import load_weights, resnet_from_weights, save_weights

__all__ = [
    "CifarResNet",
    "build_model",
    "load_weights",
    "mobilenet_v2_32",
    "resnet20",
    "resnet32",
    "resnet44",
    "resnet56",
    "resnet110",
    "resnet_from_weights",
    "save_weights",
    "slim_resnet",
    "spell_out_shortcuts",
]
