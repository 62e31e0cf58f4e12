"""A deployed copy computes what the model computes, with fewer modules."""

from __future__ import annotations

import copy

import pytest
import torch
import torchvision
from torch import nn

from tailprune.core.errors import TraceError
from tailprune.tracing import ChannelDependency, fold_norms, trace_model


def stir(model: nn.Module) -> nn.Module:
    """Norms with statistics of their own, so that leaving one out shows."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
            nn.init.uniform_(module.running_mean, -0.5, 0.5)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return model


def norms(model: nn.Module) -> int:
    return sum(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules())


@pytest.mark.parametrize(
    ("name", "unfoldable"), [("resnet18", 0), ("mobilenet_v2", 0), ("densenet", 3 + 3 + 3 + 2 + 1)]
)
def test_outputs_stay_and_foldable_norms_go(name, unfoldable):
    torch.manual_seed(0)
    if name == "densenet":
        model = torchvision.models.DenseNet(8, (3, 3, 3), 16, num_classes=5)
    else:
        model = torchvision.models.get_model(name, weights=None, num_classes=5)
    stir(model).train()
    graph = trace_model(model, torch.zeros(1, 3, 64, 64))
    state = copy.deepcopy(model.state_dict())
    deployed = fold_norms(model, graph)
    images = torch.randn(2, 3, 64, 64)
    assert model.training and all(torch.equal(state[n], t) for n, t in model.state_dict().items())
    assert not deployed.training
    assert norms(deployed) == unfoldable == sum("batch_norm" in la.shape.epilogue for la in graph.layers)
    with torch.no_grad():
        torch.testing.assert_close(deployed(images), model.eval()(images), rtol=1e-4, atol=1e-4)


def test_a_pruned_model_folds_by_its_dense_trace_and_shared_layers_fold_once():
    torch.manual_seed(0)
    block = nn.Sequential(nn.Conv2d(6, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU())
    flat = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Linear(8, 2))
    model = stir(nn.Sequential(nn.Conv2d(3, 6, 1), block, block, *flat))
    images = torch.randn(3, 3, 5, 5)
    graph = trace_model(model, images)
    dependency = ChannelDependency(model, images)
    dependency.remove("0", [1, 4])
    deployed = fold_norms(model, graph)
    assert norms(deployed) == 0 and norms(model) > 0
    torch.testing.assert_close(deployed(images), model.eval()(images), rtol=1e-4, atol=1e-4)


def test_the_graph_of_another_network_is_refused():
    graph = trace_model(
        nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1)), torch.zeros(1, 3, 4, 4), name="mine"
    )
    with pytest.raises(TraceError, match="has no layer 0 followed by a batch norm 1; the graph is that of mine"):
        fold_norms(nn.Sequential(nn.Linear(3, 4), nn.ReLU()), graph)
