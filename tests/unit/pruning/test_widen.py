"""Does a widened network compute what it did, at exactly the plan's widths, and are those that cannot refused?"""

from __future__ import annotations

import copy
import doctest
import random
from pathlib import Path

import pytest
import torch
import torchvision
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pruning_nets import IMAGES, shaken, small_net
from torch import nn

from tailprune.core.errors import PlanMismatch, TraceError
from tailprune.core.plan import GroupChoice, WidthPlan
from tailprune.pruning import apply_plan, growable_groups, widen, widen_model
from tailprune.tracing import read_widths, trace_model


def plan_of(graph, widths):
    """A plan that keeps the first channels of each group, and adds new ones where it is wider."""
    choices = tuple(
        GroupChoice(group=g.id, original=g.width, host=g.width, width=w, kept=tuple(range(min(w, g.width))))
        for g in graph.groups
        for w in [widths.get(g.id, g.width)]
    )
    return WidthPlan(
        model=graph.model, fingerprint=graph.fingerprint, input_shape=graph.input_shape, choices=choices, policy="grow",
        goal="better", original_us=1.0, host_us=1.0, predicted_us=1.0,
    )  # fmt: skip


def some_widths(graph, seed, *, among=None):
    """Up to half as many channels again in every group, in whole granules."""
    draw = random.Random(seed)
    return {
        g.id: g.width + g.granule * draw.randint(0, max(1, g.width // g.granule // 2))
        for g in graph.prunable_groups
        if among is None or g.id in among
    }


def error(model, other, images):
    with torch.no_grad():
        expected, got = model.double()(images.double()), other.double()(images.double())
    return float((expected - got).abs().max() / expected.abs().max())


@pytest.mark.parametrize(
    "name",
    [
        "mobilenet_v2",
        "mobilenet_v3_small",
        "efficientnet_b0",
        "mnasnet0_5",
        "resnet50",
        "resnext50_32x4d",
        "squeezenet1_1",
    ],
)
def test_torchvision_networks_compute_the_same_at_the_plans_widths(name):
    torch.manual_seed(0)
    model = shaken(torchvision.models.get_model(name, weights=None))
    images = torch.randn(1, 3, 64, 64)
    graph = trace_model(model, images, name=name)
    plan = plan_of(graph, some_widths(graph, seed=1))
    wide = widen_model(model, plan, images)
    assert read_widths(graph, wide) == plan.widths
    with torch.no_grad():
        expected, got = model(images), wide(images)
    assert float((expected - got).abs().max() / expected.abs().max()) < 1e-5  # float32
    assert error(model, wide, images) < 1e-6


@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, 10_000), st.integers(0, 10_000))
def test_residuals_depthwise_concatenation_groups_and_flatten(seed, widths_seed):
    """SmallNet has one of each; weights, widths and the drawn copies vary."""
    model = small_net(seed)
    images = torch.randn(2, 3, 16, 16)
    graph = trace_model(model, images)
    plan = plan_of(graph, some_widths(graph, widths_seed))
    wide = widen_model(model, plan, images, seed=seed)
    assert read_widths(graph, wide) == plan.widths
    assert error(model, wide, images) < 1e-6


class Chosen(nn.Module):
    """A chain of drawn pieces, each of which keeps copies of a channel alike."""

    def __init__(self, pieces, width):
        super().__init__()
        made, channels = [nn.Conv2d(3, width, 3, padding=1)], width
        for piece, out in pieces:
            if piece == "norm":
                made.append(nn.BatchNorm2d(channels))
            elif piece == "instance":
                made.append(nn.InstanceNorm2d(channels, affine=True))
            elif piece == "prelu":
                made.append(nn.PReLU(channels))
            elif piece == "one prelu":
                made.append(nn.PReLU())
            elif piece == "depthwise":
                made.append(nn.Conv2d(channels, channels, 3, padding=1, groups=channels))
            elif piece == "grouped":
                made.append(nn.Conv2d(channels, 4 * out, 3, padding=1, groups=2))
                channels = 4 * out
            elif piece == "transposed":
                made.append(nn.ConvTranspose2d(channels, 2 * out, 2, stride=2, bias=False))
                channels = 2 * out
            else:
                made.append(nn.Conv2d(channels, 4 * out, 1))
                channels = 4 * out
        self.body = nn.Sequential(*made)
        self.head = nn.Linear(4 * channels, 5)

    def forward(self, x):
        return self.head(torch.nn.functional.adaptive_avg_pool2d(torch.tanh(self.body(x)), 2).flatten(1))


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["norm", "instance", "prelu", "one prelu", "depthwise", "grouped", "transposed", "conv"]),
            st.integers(1, 3),
        ),
        max_size=5,
    ),
    st.sampled_from([4, 8]),
    st.integers(0, 1000),
)
def test_random_small_networks(pieces, width, seed):
    torch.manual_seed(seed)
    model = shaken(Chosen(pieces, width))
    images = torch.randn(2, 3, 8, 8)
    graph = trace_model(model, images)
    plan = plan_of(graph, some_widths(graph, seed, among=growable_groups(model, images)))
    wide = widen_model(model, plan, images, seed=seed)
    assert error(model, wide, images) < 1e-6
    assert trace_model(wide.float(), images).widths == plan.widths


def test_training_mode_computes_the_same_too_and_copies_part_ways():
    model = small_net()
    images = torch.randn(4, 3, 16, 16)
    wide = widen_model(model, plan_of(trace_model(model, images), {"inner.0": 48}), images)
    model.train(), wide.train()
    expected, got = model(images), wide(images)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
    got.square().sum().backward()
    kernels, gradients = wide.inner[0].weight.detach(), wide.inner[0].weight.grad
    twins = [(i, j) for i in range(48) for j in range(i) if torch.equal(kernels[i], kernels[j])]
    assert len(twins) == 24  # every channel was copied once
    assert all(not torch.allclose(gradients[i], gradients[j]) for i, j in twins)


def test_the_given_model_is_untouched_and_flags_survive():
    model = small_net()
    model.inner[0].weight.requires_grad_(False)
    before = copy.deepcopy(model.state_dict())
    wide = widen_model(model, plan_of(trace_model(model, IMAGES), {"inner.0": 30}), IMAGES)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert not wide.inner[0].weight.requires_grad and wide.outer[0].weight.requires_grad
    assert wide.inner[0].out_channels == 30 and wide.inner[1].num_features == 30 and wide.outer[0].in_channels == 30


def test_seeds_decide_the_copies():
    model, images = small_net(), torch.randn(1, 3, 16, 16)
    plan = plan_of(trace_model(model, images), {"inner.0": 30})
    states = [widen_model(model, plan, images, seed=seed).state_dict() for seed in (1, 1, 2)]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert any(not torch.equal(states[0][key], states[2][key]) for key in states[0])


def test_a_plan_may_narrow_one_group_and_widen_another():
    model = small_net()
    graph = trace_model(model, IMAGES)
    narrow, both = plan_of(graph, {"inner.0": 12}), plan_of(graph, {"inner.0": 12, "merge.0": 40})
    images = torch.randn(2, 3, 16, 16)
    assert error(apply_plan(model, narrow, images), widen_model(model, both, images), images) < 1e-6


class Gate(nn.Module):
    """A bare scale, squeeze and excitation, and pixels flattened into channels."""

    def __init__(self):
        super().__init__()
        self.conv, self.scale = nn.Conv2d(3, 8, 3, padding=1), nn.Parameter(torch.rand(8, 1, 1))
        self.squeeze, self.excite = nn.Conv2d(8, 4, 1), nn.Conv2d(4, 8, 1)
        self.merge, self.head = nn.Conv2d(8, 6, 1), nn.Linear(6 * 16, 5)

    def forward(self, x):
        x = torch.relu(self.conv(x)) * self.scale
        x = x * torch.sigmoid(self.excite(torch.relu(self.squeeze(x.mean((2, 3), keepdim=True)))))
        x = torch.relu(self.merge(x))
        return self.head(torch.nn.functional.adaptive_avg_pool2d(x, 4).flatten(1))


def test_gates_bare_scales_and_pixels():
    torch.manual_seed(0)
    model, images = Gate(), torch.randn(2, 3, 8, 8)
    assert growable_groups(model, images) == ("conv", "squeeze", "merge")
    plan = plan_of(trace_model(model, images), {"conv": 13, "squeeze": 7, "merge": 11})
    wide = widen_model(model, plan, images)
    assert wide.scale.shape == (13, 1, 1)
    assert error(model, wide, images) < 1e-6


def norm_net(norm):
    return nn.Sequential(nn.Conv2d(3, 8, 3), norm, nn.ReLU(), nn.Conv2d(8, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3))


@pytest.mark.parametrize("norm", [nn.GroupNorm(2, 8), nn.LocalResponseNorm(3)])
def test_what_depends_on_other_channels_is_refused_and_the_rest_grows(norm):
    model, images = norm_net(norm), torch.randn(1, 3, 16, 16)
    if "0" in growable_groups(model, images):  # a norm without parameters per channel is no member: equal, or refused
        wide = widen_model(model, plan_of(trace_model(model, images), {"0": 12}), images)
        assert error(model, wide, images) < 1e-6
    else:
        with pytest.raises(TraceError, match="Group 0 cannot be widened"):
            widen_model(model, plan_of(trace_model(model, images), {"0": 12}), images)
    assert "3" in growable_groups(model, images)


def test_refusals_say_why():
    model = small_net()
    graph = trace_model(model, IMAGES)
    with pytest.raises(TraceError, match="Group head cannot be widened: it is the network's output"):
        widen_model(model, plan_of(graph, {"inner.0": 40, "head": 12}), IMAGES)
    with pytest.raises(PlanMismatch, match=r"grouped.0 cannot have 26 channels: they must be a multiple of 4"):
        widen_model(model, plan_of(graph, {"inner.0": 40, "grouped.0": 26}), IMAGES)
    with pytest.raises(PlanMismatch, match=r"expects|names the channel group"):
        widen_model(small_net(width=8), plan_of(graph, {}), IMAGES)


class Twice(nn.Module):
    """The two parts of one concatenation are the same channels."""

    def __init__(self, gated=False):
        super().__init__()
        self.conv, self.merge = nn.Conv2d(3, 8, 3), nn.Conv2d(16, 6, 1)
        self.gate = nn.Conv2d(8, 8, 1) if gated else None

    def forward(self, x):
        x = torch.relu(self.conv(x))
        x = x if self.gate is None else x * torch.sigmoid(self.gate(x.mean((2, 3), keepdim=True)))
        return self.merge(torch.cat([x, -x], 1)).mean((2, 3))


def test_channels_that_are_concatenated_with_themselves():
    """Where the trace follows them they grow in both parts; where its trial cut disproves it, they are refused."""
    images = torch.randn(1, 3, 8, 8)
    for model in (Twice(), Twice(gated=True)):
        plan = plan_of(trace_model(model, images), {"conv": 12})
        if "conv" in growable_groups(model, images):
            assert error(model, widen_model(model, plan, images), images) < 1e-6
        else:
            with pytest.raises(TraceError, match="Group conv cannot be widened"):
                widen_model(model, plan, images)


def test_docstring_examples_run():
    result = doctest.testmod(widen)
    assert result.attempted > 1 and result.failed == 0


def test_the_worked_example_of_the_page_runs():
    result = doctest.testfile(str(Path(__file__).resolve().parents[3] / "docs" / "growing.md"), module_relative=False)
    assert result.attempted > 9 and result.failed == 0
