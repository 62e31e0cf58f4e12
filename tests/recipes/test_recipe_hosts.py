"""The pipelines that recipes wrap."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from recipes.errors import RecipeError
from recipes.hosts import HOSTS, build_host
from recipes.models import slim_resnet

EXAMPLE = torch.zeros(2, 3, 16, 16)


def pruned(criterion: str, **options: object) -> nn.Module:
    torch.manual_seed(0)
    model = slim_resnet(1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(
                module.weight, 0.1, 1.0
            )  # all scales start alike, and bn_scale would find nothing to prefer
    model(torch.randn(2, 3, 16, 16)).sum().backward()  # taylor needs gradients
    build_host(criterion, model, EXAMPLE, 0.5, **options).step()  # type: ignore[arg-type]
    return model.eval()


@pytest.mark.parametrize("criterion", HOSTS)
def test_every_criterion_prunes_and_leaves_the_classes(criterion: str) -> None:
    model = pruned(criterion)
    assert sum(p.numel() for p in model.parameters()) < 0.7 * sum(p.numel() for p in slim_resnet(1).parameters())
    assert model(EXAMPLE).shape == (2, 10)


def test_what_is_ignored_keeps_its_channels() -> None:
    free = pruned("magnitude")
    held = pruned(
        "magnitude", ignored=lambda model: [m for m in model.modules() if isinstance(m, (nn.Linear, nn.Conv2d))]
    )
    widths = [[m.out_channels for m in model.modules() if isinstance(m, nn.Conv2d)] for model in (free, held)]
    assert widths[1] == [m.out_channels for m in slim_resnet(1).modules() if isinstance(m, nn.Conv2d)]
    assert sum(widths[0]) < sum(widths[1])


def test_an_unknown_criterion_says_which_there_are() -> None:
    with pytest.raises(RecipeError, match=r"Unknown importance 'l7'; allowed: magnitude, taylor, bn_scale, lamp\."):
        build_host("l7", slim_resnet(1), EXAMPLE, 0.5)
