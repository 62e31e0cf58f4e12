"""Which weights lie in another memory format than their network runs in."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import tailprune
from tailprune.timing.memory_format import lies_channels_last, stray_weights


@pytest.mark.parametrize(
    ("shape", "layout", "last"),
    [
        ((8, 4, 3, 3), torch.channels_last, True),
        ((8, 4, 1, 1), torch.channels_last, True),
        ((8, 1, 3, 3), torch.channels_last, True),
        ((8, 4, 1, 1), torch.contiguous_format, False),
        ((8, 1, 3, 3), torch.contiguous_format, False),
        ((8, 1, 1, 1), torch.channels_last, False),  # both formats at once
        ((8, 4, 3, 3, 3), torch.channels_last_3d, True),
    ],
)
def test_the_format_is_read_off_the_strides(shape: tuple[int, ...], layout: torch.memory_format, last: bool) -> None:
    assert lies_channels_last(torch.empty(shape).to(memory_format=layout)) is last


def test_vectors_have_no_format() -> None:
    assert not lies_channels_last(torch.empty(8))


def two_convolutions() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.Conv2d(8, 4, 1)).eval()


@pytest.mark.parametrize("images_last", [False, True])
@pytest.mark.parametrize("model_last", [False, True])
def test_a_network_in_one_format_strays_only_from_its_images(model_last: bool, images_last: bool) -> None:
    net, images = two_convolutions(), torch.randn(1, 3, 8, 8)
    net = net.to(memory_format=torch.channels_last) if model_last else net
    images = images.to(memory_format=torch.channels_last) if images_last else images
    expected = ("0.weight", "2.weight") if images_last and not model_last else ()
    assert stray_weights(net, (images,)) == expected


def test_what_can_lie_either_way_never_strays() -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 1, groups=8)).to(memory_format=torch.channels_last)
    net[1].weight.data = net[1].weight.data.contiguous()
    assert stray_weights(net) == ()


def test_measuring_a_network_with_stray_weights_says_so() -> None:
    net, images = two_convolutions().to(memory_format=torch.channels_last), torch.randn(1, 3, 8, 8)
    clean = tailprune.measure_model({"net": net}, images, rounds=6)
    net[2].weight.data = net[2].weight.data.contiguous()
    noted = tailprune.measure_model({"net": net}, images, rounds=6)
    asked = tailprune.measure_model({"net": net}, images, rounds=6, memory_format="contiguous")
    line = (
        "1 of the weights of 'net' contiguous (2.weight first): measured channels_last, but as it is the model rearranges "
        "them at every call; use model.to(memory_format=torch.channels_last)"
    )
    assert line in noted.notes
    assert line not in clean.notes + asked.notes
    assert not lies_channels_last(net[2].weight)  # the model itself is left alone
