"""Every activation of the common model zoos ends in its layer's epilogue, however PyTorch spells it."""

from __future__ import annotations

import inspect
import warnings

import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional as F

from tailprune.core.shapes import EPILOGUE_OPS
from tailprune.timing.epilogue import ACTIVATIONS
from tailprune.tracing import trace_model

#: What torchvision and timm use, and what a block runs for it.
MODULES = {
    nn.ReLU: "relu", nn.ReLU6: "relu6", nn.Hardtanh: "relu6", nn.SiLU: "silu", nn.GELU: "gelu", nn.Mish: "mish",
    nn.Hardswish: "hardswish", nn.Hardsigmoid: "hardsigmoid", nn.Sigmoid: "sigmoid", nn.LeakyReLU: "leaky_relu",
    nn.PReLU: "leaky_relu", nn.RReLU: "leaky_relu", nn.Tanh: "tanh", nn.ELU: "elu", nn.CELU: "elu", nn.SELU: "elu",
}  # fmt: skip
FUNCTIONS = {
    F.relu6: "relu6", F.hardtanh: "relu6", F.leaky_relu_: "leaky_relu", F.elu_: "elu", torch.relu_: "relu",
    torch.sigmoid_: "sigmoid", torch.Tensor.tanh_: "tanh", torch.Tensor.relu: "relu",
}  # fmt: skip


class Act(nn.Module):
    """A convolution, a function of its output, and a convolution that reads the result."""

    def __init__(self, function) -> None:
        super().__init__()
        self.first, self.second, self.function = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 4, 1), function

    def forward(self, x):
        return self.second(self.function(self.first(x)))


def epilogue(function) -> tuple[str, ...]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        graph = trace_model(Act(function), torch.zeros(1, 3, 16, 16))
    assert len(graph.layers) == 2 and not graph.untraced
    return graph.layers[0].shape.epilogue


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
@pytest.mark.parametrize("in_place", [False, True])
def test_activation_modules_are_in_the_epilogue(module, in_place):
    has_both = "inplace" in inspect.signature(module).parameters
    assert epilogue(module(inplace=in_place) if has_both else module()) == ("bias", MODULES[module])


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.__name__)
def test_activation_functions_are_in_the_epilogue(function):
    assert epilogue(function) == ("bias", FUNCTIONS[function])


def test_every_block_that_an_activation_may_need_exists():
    assert {*MODULES.values(), *FUNCTIONS.values()} == set(ACTIVATIONS) <= set(EPILOGUE_OPS)


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda x: x.clamp_(0, 6), ("relu6",)),
        (lambda x: torch.clip(x, 0, 6), ("relu6",)),
        (lambda x: F.threshold(x, 0.0, 0.0, inplace=True), ("copy",)),
        (lambda x: x.exp_(), ("copy",)),
        (lambda x: x.add_(3.0).clamp_(0.0, 6.0).div_(6.0), ("scale", "relu6", "scale")),  # timm's hard sigmoid
    ],
)
def test_what_changes_a_tensor_in_place_is_an_operation(function, expected):
    assert epilogue(function) == ("bias", *expected)


def test_what_changes_nothing_is_none():
    assert epilogue(lambda x: F.dropout(x, 0.5, training=False, inplace=True).view_as(x)) == ("bias",)


def test_timm_activations_are_in_the_epilogue():
    layers = pytest.importorskip("timm.layers", reason="timm is not installed")
    for name in ("relu", "relu6", "silu", "mish", "leaky_relu", "elu", "celu", "selu", "gelu", "gelu_tanh", "sigmoid", "tanh",
                 "prelu", "hard_sigmoid", "hard_swish"):  # fmt: skip
        assert epilogue(layers.create_act_layer(name, inplace=True))[1:] != ("copy",), name
        assert len(epilogue(layers.create_act_layer(name, inplace=True))) == 2, name


@pytest.mark.parametrize(
    ("name", "activation"),
    [("mobilenet_v2", "relu6"), ("mobilenet_v3_small", "hardswish"), ("efficientnet_b0", "silu")],
)
def test_networks_keep_all_activations_behind_their_layers(name, activation):
    model = torchvision.models.get_model(name, weights=None)
    graph = trace_model(model, torch.zeros(1, 3, 64, 64))
    found = sum(layer.calls * layer.shape.epilogue.count(activation) for layer in graph.layers)
    assert found == sum(isinstance(module, ACTIVATIONS[activation]) for module in model.modules()) > 0
