"""The contract of a model graph: cut any widths it allows, and every layer has the channels its expressions foretell."""

from __future__ import annotations

import copy
import random
import warnings

import pytest
import torch
import torchvision
from torch import nn

from tailprune.core.graph import ModelGraph
from tailprune.tracing import ChannelDependency, trace_model

#: Small members of each family: residual, plain with flatten, concatenation (dense and side by side), depthwise,
#: squeeze-excite, grouped with a granule, layer norm with layer scale, channel shuffle, tokens.
NETS = ("resnet18", "vgg11_bn", "small_densenet", "squeezenet1_1", "googlenet", "mobilenet_v2", "mobilenet_v3_small",
        "regnet_y_400mf", "shufflenet_v2_x0_5", "convnext_tiny", "tiny_vit")  # fmt: skip
IMAGES = torch.zeros(2, 3, 64, 64)


def build(name: str) -> nn.Module:
    torch.manual_seed(0)
    if name == "tiny_vit":
        model = torchvision.models.VisionTransformer(64, 16, 2, 4, 32, 64, num_classes=10)
        nn.init.normal_(model.heads.head.weight)  # zero as it comes, and zeros prove nothing
        return model.eval()
    if name == "small_densenet":
        return torchvision.models.DenseNet(8, (3, 3, 3, 2), 16, num_classes=10).eval()
    if name == "vgg11_bn":  # the usual classifier has a hundred million weights, which prove nothing more
        model = torchvision.models.vgg11_bn(weights=None, num_classes=10, init_weights=False)
        model.avgpool = nn.AdaptiveAvgPool2d(2)
        model.classifier = nn.Sequential(nn.Linear(512 * 4, 64), nn.ReLU(), nn.Dropout(), nn.Linear(64, 10))
        return model.eval()
    options = {"init_weights": False} if name == "googlenet" else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torchvision.models.get_model(name, weights=None, num_classes=10, **options).eval()


@pytest.fixture(scope="module")
def traced() -> dict[str, tuple[nn.Module, ModelGraph, ChannelDependency]]:
    return {}


@pytest.fixture(params=NETS)
def net(request, traced) -> tuple[str, nn.Module, ModelGraph]:
    name = request.param
    if name not in traced:
        model = build(name)
        traced[name] = (model, trace_model(model, IMAGES, name=name))
    return (name, *traced[name])


def choose(graph: ModelGraph, seed: int) -> dict[str, list[int]]:
    """Group id -> channels to remove: a random number of offsets, whole blocks under a granule."""
    rng = random.Random(seed)
    gone = {}
    for group in graph.prunable_groups:
        block = group.width // group.granule
        offsets = rng.sample(range(block), rng.randrange(1, block))
        gone[group.id] = [offset + block * i for offset in offsets for i in range(group.granule)]
    return gone


def real_channels(model: nn.Module) -> dict[str, tuple[int, int]]:
    """Module -> its channels, from the shapes of its weights, not from what it says."""
    found = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.conv._ConvNd):
            found[name] = (module.weight.shape[1] * module.groups, module.weight.shape[0])
        elif isinstance(module, nn.Linear):
            found[name] = (module.weight.shape[1], module.weight.shape[0])
        elif isinstance(module, nn.BatchNorm2d | nn.LayerNorm):
            found[name] = (module.weight.shape[0], module.weight.shape[0])
    return found


def macs_by_hooks(model: nn.Module, inputs: torch.Tensor) -> int:
    """Multiply-adds of convolutions and linear layers, counted while they run."""
    total = 0

    def count(module: nn.Module, _inputs: object, output: torch.Tensor) -> None:
        nonlocal total
        total += output.numel() * module.weight[0].numel()

    kinds = (nn.modules.conv._ConvNd, nn.Linear)
    handles = [module.register_forward_hook(count) for module in model.modules() if isinstance(module, kinds)]
    with torch.no_grad():
        model(inputs)
    for handle in handles:
        handle.remove()
    return total


def macs_of(graph: ModelGraph, widths: dict[str, int] | None = None) -> int:
    return sum(la.calls * s.macs for la, s in graph.shapes_at(widths) if s.op in ("conv", "linear"))


def test_every_layer_with_weights_is_covered_exactly_once(net):
    _, model, graph = net
    assert macs_of(graph) == macs_by_hooks(model, IMAGES)


def test_most_groups_are_prunable_and_the_others_say_why(net):
    name, _, graph = net
    assert all(bool(group.reason) != group.prunable for group in graph.groups)
    share = len(graph.prunable_groups) / len(graph.groups)
    assert share >= {"shufflenet_v2_x0_5": 0.45, "tiny_vit": 0.5}.get(name, 0.9)


def test_random_widths_give_the_channels_that_the_graph_foretells(net):
    name, model, graph = net
    pruned = copy.deepcopy(model)
    dependency = ChannelDependency(pruned, IMAGES)
    gone = choose(graph, seed=len(name))
    for group_id, channels in gone.items():
        dependency.remove(group_id, channels)
    widths = {group_id: graph.group(group_id).width - len(channels) for group_id, channels in gone.items()}
    channels_of = real_channels(pruned)
    for layer, shape in graph.shapes_at(widths):
        if layer.name in channels_of:
            assert (shape.in_channels, shape.out_channels) == channels_of[layer.name], layer.name
        if layer.norm:
            assert shape.out_channels == channels_of[layer.norm][0], layer.norm
    with torch.no_grad():
        assert pruned(IMAGES).shape == model(IMAGES).shape
    assert macs_of(graph, widths) == macs_by_hooks(pruned, IMAGES)
    if name not in ("resnet18", "small_densenet", "googlenet", "tiny_vit"):  # the others cost time and prove no more
        return
    again = trace_model(pruned, IMAGES, name=name)
    assert again.widths == {**graph.widths, **widths}
    assert [(la.name, shape) for la, shape in again.shapes_at()] == [(la.name, s) for la, s in graph.shapes_at(widths)]


@pytest.mark.parametrize(
    "name",
    ["resnet18", "vgg11_bn", "small_densenet", "googlenet", "mobilenet_v3_small", "shufflenet_v2_x0_5", "tiny_vit"],
)
def test_removing_channels_equals_zeroing_them(name):
    """The right indices, not only the right number: a shape test alone would let a shifted concatenation pass."""
    model = build(name)
    graph = trace_model(model, IMAGES)
    for module in model.modules():  # norms that do something, so that a wrong index shows
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5), nn.init.uniform_(module.bias, -0.5, 0.5)
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
    zeroed, pruned = copy.deepcopy(model), copy.deepcopy(model)
    dependency = ChannelDependency(pruned, IMAGES)
    modules = dict(zeroed.named_modules())
    for group_id, channels in choose(graph, seed=1).items():
        for member in dependency.group(group_id).members:
            if member.side == "out":
                rows = [i for i, c in zip(member.indices, member.channels, strict=True) if c in set(channels)]
                for parameter in modules[member.module].parameters(recurse=False):
                    parameter.data[rows] = 0
        dependency.remove(group_id, channels)
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected, got = zeroed.double()(images.double()), pruned.double()(images.double())
    assert expected.abs().max() > 0
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)
