"""Which networks do the recipes train? CIFAR ResNets, with and without parameters in their shortcuts."""

from recipes.models.cifar_resnet import CifarResNet, resnet20, resnet56, slim_resnet
from recipes.models.weights import load_weights, resnet_from_weights, save_weights

__all__ = ["CifarResNet", "load_weights", "resnet20", "resnet56", "resnet_from_weights", "save_weights", "slim_resnet"]
