"""Hosts that say widths, masks, zeros or scores: their choice is taken over exactly, or refused in one sentence."""

from __future__ import annotations

import doctest
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from pruning_nets import IMAGES, Smooth, Stairs, conv_norm, shaken, small_net
from torch import nn
from torch.nn.utils import prune

from tailprune.core.errors import InvalidShape, TraceError
from tailprune.core.scores import ChannelScores
from tailprune.planning import choose_host, plan_widths
from tailprune.pruning import (
    apply_plan,
    host_from_masks,
    host_from_scores,
    host_from_widths,
    host_from_zeros,
    pipelines,
    prune_model,
    score_channels,
    verify_pruned,
    zeros,
)
from tailprune.tracing import trace_model

NET = small_net()
GRAPH = trace_model(NET, IMAGES)


class Gated(nn.Module):
    """A squeeze-excite gate over a depthwise layer: three layers in a row share each channel."""

    def __init__(self) -> None:
        super().__init__()
        self.expand, self.depth = conv_norm(3, 16, kernel=1), conv_norm(16, 16, conv_groups=16)
        self.squeeze, self.excite = nn.Conv2d(16, 8, 1), nn.Conv2d(8, 16, 1)
        self.project = nn.Conv2d(16, 6, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu6(self.depth(F.relu6(self.expand(x))))
        gate = F.hardsigmoid(self.excite(F.relu(self.squeeze(x.mean((2, 3), keepdim=True)))))
        return self.project(x * gate)


def silence_norms(net: nn.Module) -> nn.Module:
    """Norms that pass zero on as zero, as they come to do when they are trained behind masked filters."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.zeros_(module.bias)
            nn.init.zeros_(module.running_mean)
    return net


def mask_rows(module: nn.Module, rows: list[int], name: str = "weight") -> None:
    mask = torch.ones_like(getattr(module, name))
    mask[rows] = 0
    prune.custom_from_mask(module, name, mask)


def host_plan_of(graph, host: ChannelScores):
    """The plan on a device without steps: nothing is worth moving."""
    return plan_widths(graph, host, latency=Smooth(), policy="snap")


def assert_taken_over(net: nn.Module, graph, host: ChannelScores) -> nn.Module:
    """Without steps the plan is the host, channel by channel, and the pruned network has its widths."""
    plan = host_plan_of(graph, host)
    assert plan.widths == host.host_widths
    for group in host.groups:
        assert plan.by_group[group.group].kept == group.host_kept
    pruned = apply_plan(net, plan)
    assert trace_model(pruned, IMAGES).widths == {**graph.widths, **plan.widths}
    return pruned


def outputs(net: nn.Module) -> torch.Tensor:
    images = torch.randn(IMAGES.shape, generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        return net.eval()(images)


# --- widths ---------------------------------------------------------------------------------------------------------


@settings(max_examples=12, deadline=None)
@given(st.data())
def test_widths_are_kept_exactly_and_the_best_channels_stay(data) -> None:
    asked = {g.id: data.draw(st.sampled_from(g.grid)) for g in GRAPH.prunable_groups if data.draw(st.booleans())}
    host = host_from_widths(NET, GRAPH, asked)
    scored = score_channels(NET, GRAPH)
    assert host.host_widths == {g.id: asked.get(g.id, g.width) for g in GRAPH.prunable_groups}
    for group in scored.groups:
        assert host.by_group[group.group].host_kept == group.kept_channels(host.host_widths[group.group])
    plan = host_plan_of(GRAPH, host)
    assert plan.widths == host.host_widths


def test_widths_are_cut_as_asked() -> None:
    pruned = assert_taken_over(NET, GRAPH, host_from_widths(NET, GRAPH, {"inner.0": 17, "merge.0": 0.25}))
    assert (pruned.inner[0].out_channels, pruned.merge[0].out_channels) == (17, 24)


@pytest.mark.parametrize(("ratio", "width"), [(0.0, 24), (0.5, 12), (0.3, 16), (0.9, 2), (1 / 24, 23)])
def test_a_ratio_removes_at_least_its_share_in_whole_channels(ratio: float, width: int) -> None:
    assert host_from_widths(NET, GRAPH, {"inner.0": ratio}).host_widths["inner.0"] == width
    assert width <= 24 * (1 - ratio) + 1e-6


def test_ratios_that_floating_point_blurs_are_exact() -> None:
    assert host_from_widths(NET, GRAPH, {"expand.0": 0.9}).host_widths["expand.0"] == 2  # 20 x (1 - 0.9) is 1.9999...


def test_any_producer_and_its_norm_name_a_group() -> None:
    for name in ("stem.0", "outer.0", "stem.1", "outer.1"):
        assert host_from_widths(NET, GRAPH, {name: 11}).host_widths["stem.0"] == 11
    assert host_from_widths(NET, GRAPH, {"depth.0": 11, "expand.0": 11, "head": 10}).host_widths["expand.0"] == 11


@pytest.mark.parametrize(
    ("widths", "said"),
    [
        (
            {"stem.0": 12, "outer.0": 10},
            r"stem\.0: 12 and outer\.0: 10 ask for two widths of one channel group \(stem\.0",
        ),
        ({"stem.0": 12, "outer.0": 0.5}, r"stem\.0: 12 and outer\.0: 0\.5 ask for two widths"),
        ({"inner.0": 1.0}, r"inner\.0: a ratio of 1\.0 would remove all 24 channels"),
        ({"inner.0": 0.99}, r"a ratio of 0\.99 would remove all 24 channels"),
        ({"inner.0": 0}, r"inner\.0: 0 would leave channel group inner\.0 empty; keep at least 1 of its 24"),
        ({"inner.0": -3}, r"would leave channel group inner\.0 empty"),
        ({"inner.0": 25}, r"inner\.0: 25 is more than the 24 channels"),
        ({"grouped.0": 7}, r"grouped\.0: 7 is no multiple of 4, the granule of channel group grouped\.0; use 4 or 8"),
        ({"grouped.0": 3}, r"use 4\."),
        ({"inner.0": 12.5}, r"inner\.0: 12\.5 is neither a number of channels"),
        ({"inner.0": math.nan}, "nan is neither"),
        ({"inner.0": True}, "True is neither"),
        ({"inner.0": "12"}, "'12' is neither"),
        ({"iner.0": 12}, r"SmallNet has no layer 'iner\.0'; did you mean inner\.0"),
        ({"backbone": 12}, r"has no layer 'backbone'; it has stem\.0"),
        ({"head": 5}, "head cannot have 5 of its 10 channels: it is the network's output"),
    ],
)
def test_bad_widths_are_refused_in_one_sentence(widths: dict, said: str) -> None:
    with pytest.raises(InvalidShape, match=said) as caught:
        host_from_widths(NET, GRAPH, widths)
    assert "\n" not in str(caught.value)


def test_a_graph_of_another_model_is_refused() -> None:
    other = trace_model(small_net(width=20), IMAGES)
    with pytest.raises(InvalidShape, match=r"that this model has not\. Trace it again"):
        host_from_widths(NET, other, {"stem.0": 12})
    with pytest.raises(InvalidShape, match=r"of another network: it has 20 channels in group stem\.0"):
        prune_model(NET, IMAGES, latency=Stairs(), host=host_from_scores(other, {"stem.0": range(20)}, 0.5))


# --- scores ---------------------------------------------------------------------------------------------------------


def test_given_scores_are_ranked_as_the_unrounded_host_ranks_them() -> None:
    scored = score_channels(NET, GRAPH)
    for scope in ("global", "local"):
        ours = host_from_scores(GRAPH, {g.group: list(g.scores) for g in scored.groups}, 0.4, scope)
        theirs = choose_host(scored, 0.4, scope=scope)
        assert [(g.group, g.host_kept, g.scope) for g in ours.groups] == [
            (g.group, g.host_kept, g.scope) for g in theirs.groups
        ]
        assert_taken_over(NET, GRAPH, ours)


def test_several_names_of_a_group_are_averaged() -> None:
    host = host_from_scores(GRAPH, {"stem.0": torch.arange(16), "outer.0": [4.0] * 16}, 0.5)
    assert host.by_group["stem.0"].scores == tuple((c + 4.0) / 2 for c in range(16))
    assert host.by_group["stem.0"].host_kept == tuple(range(8, 16))
    assert any("no scores, so they keep all" in line and "inner.0" in line for line in host.warnings)


def test_negative_scores_keep_their_order_and_it_is_said() -> None:
    values = {"inner.0": torch.linspace(-2, 1, 24), "merge.0": torch.linspace(-1, 5, 32)}
    host = host_from_scores(GRAPH, values, 0.5)
    assert min(host.by_group["inner.0"].scores) == 0
    assert min(host.by_group["merge.0"].scores) == pytest.approx(1)
    assert sum("negative down to -2" in line for line in host.warnings) == 1
    local = host_from_scores(GRAPH, values, 0.5, "local")
    assert min(local.by_group["merge.0"].scores) == 0
    assert sum("negative" in line for line in local.warnings) == 2


def test_scores_of_a_fixed_layer_are_not_used_and_it_is_said() -> None:
    host = host_from_scores(GRAPH, {"head": range(10), "inner.0": range(24)}, 0.25)
    assert list(host.by_group) == ["inner.0"]
    assert any("head: its scores are not used" in line for line in host.warnings)


@pytest.mark.parametrize(
    ("scores", "ratio", "said"),
    [
        ({"inner.0": [1.0] * 23 + [math.nan]}, 0.5, r"The score of channel 23 of inner\.0 is nan"),
        ({"inner.0": [math.inf] + [1.0] * 23}, 0.5, "is inf; scores must be finite"),
        ({"inner.0": [1.0] * 23}, 0.5, r"inner\.0 has 24 channels in its group, but 23 scores; give one per channel"),
        ({"inner.0": torch.ones(24, 3)}, 0.5, r"but scores of shape \(24, 3\)"),
        ({"inner.0": "high"}, 0.5, "are no numbers"),
        ({"inner.0": range(24)}, 1, "below 1, got 1: a ratio of 1 leaves no channel"),
        ({"inner.0": range(24)}, -0.1, "at least 0 and below 1, got -0.1"),
        ({"inner.0": range(24)}, math.nan, "got nan"),
        ({"outter.0": range(24)}, 0.5, r"did you mean outer\.0"),
        ({"head": range(10)}, 0.5, "None of the scored layers can be pruned"),
        ({}, 0.5, "None of the scored layers"),
    ],
)
def test_bad_scores_are_refused_in_one_sentence(scores: dict, ratio: float, said: str) -> None:
    with pytest.raises(InvalidShape, match=said) as caught:
        host_from_scores(GRAPH, scores, ratio)
    assert "\n" not in str(caught.value)


# --- masks ----------------------------------------------------------------------------------------------------------


def test_masked_filters_leave_and_the_network_computes_the_same() -> None:
    net = silence_norms(small_net())
    mask_rows(net.inner[0], [0, 3, 5])
    mask_rows(net.merge[0], [1, 9, 17, 25])  # granule 4: the same place of each block of 8
    graph = trace_model(net, IMAGES)
    assert graph.fingerprint == GRAPH.fingerprint
    host = host_from_masks(net, graph)
    assert host.warnings == ()
    assert host.by_group["inner.0"].host_kept == tuple(c for c in range(24) if c not in (0, 3, 5))
    assert host.host_widths["merge.0"] == 28
    pruned = assert_taken_over(net, graph, host)
    torch.testing.assert_close(outputs(pruned), outputs(net), rtol=0, atol=1e-5)
    assert verify_pruned(net, pruned, host_plan_of(graph, host), IMAGES).ok
    assert not any("mask" in name or "orig" in name for name in pruned.state_dict())
    assert prune.is_pruned(net), "the given model keeps its masks"


def test_a_norm_that_shifts_a_masked_filter_is_told_apart_from_one_that_does_not() -> None:
    """The masked filter is zero, but its norm makes a constant of it: removing it changes the output, and that is said."""
    net = small_net()
    mask_rows(net.inner[0], [0, 3])
    with torch.no_grad():
        net.inner[1].bias[[0, 3]] = 5.0  # a constant that survives ReLU
    graph = trace_model(net, IMAGES)
    host = host_from_masks(net, graph)
    (line,) = host.warnings
    assert line.startswith("inner.0: 2 masked channels still pass on a constant of up to")
    assert (outputs(assert_taken_over(net, graph, host)) - outputs(net)).abs().max() > 1e-3
    keeping = host_from_masks(net, graph, constants="keep")
    assert keeping.host_widths == graph_widths(graph)
    assert "kept" in keeping.warnings[0]
    torch.testing.assert_close(outputs(assert_taken_over(net, graph, keeping)), outputs(net), rtol=0, atol=1e-5)


def graph_widths(graph) -> dict[str, int]:
    return {group.id: group.width for group in graph.prunable_groups}


def test_a_negative_shift_that_relu_stops_is_no_constant() -> None:
    net = small_net()
    mask_rows(net.inner[0], [7])
    with torch.no_grad():
        net.inner[1].bias[7] = -5.0
    graph = trace_model(net, IMAGES)
    host = host_from_masks(net, graph)
    assert host.warnings == () and host.host_widths["inner.0"] == 23
    torch.testing.assert_close(outputs(assert_taken_over(net, graph, host)), outputs(net), rtol=0, atol=1e-5)


def test_a_residual_channel_goes_only_when_all_its_branches_are_masked() -> None:
    net = silence_norms(small_net())
    mask_rows(net.stem[0], [1, 2, 3])
    mask_rows(net.outer[0], [3, 4])
    graph = trace_model(net, IMAGES)
    host = host_from_masks(net, graph)
    assert host.host_widths["stem.0"] == 15
    assert 3 not in host.by_group["stem.0"].host_kept
    assert host.warnings == (
        "stem.0: 3 channels are masked in some layers of the group only (stem.0, outer.0), others still feed or read them: kept",
    )
    torch.testing.assert_close(outputs(assert_taken_over(net, graph, host)), outputs(net), rtol=0, atol=1e-5)


def test_one_masked_layer_in_a_row_is_enough() -> None:
    torch.manual_seed(0)
    net = silence_norms(shaken(Gated()))
    with torch.no_grad():
        net.depth[0].bias.zero_()
    mask_rows(net.expand[0], [0, 1])
    mask_rows(net.depth[0], [1, 2])
    graph = trace_model(net, IMAGES)
    host = host_from_masks(net, graph)
    assert host.warnings == ()
    assert host.by_group["expand.0"].host_kept == tuple(range(3, 16))
    torch.testing.assert_close(outputs(assert_taken_over(net, graph, host)), outputs(net), rtol=0, atol=1e-5)


def test_a_masked_gate_still_passes_half() -> None:
    """hardsigmoid(0) is a half: a masked gate cuts nothing off."""
    torch.manual_seed(0)
    net = silence_norms(shaken(Gated()))
    mask_rows(net.excite, [4])
    graph = trace_model(net, IMAGES)
    host = host_from_masks(net, graph)
    assert host.host_widths["expand.0"] == 16
    assert "some layers of the group only (excite)" in host.warnings[0]


def test_columns_that_nobody_reads_leave() -> None:
    net = small_net()
    mask = torch.ones_like(net.outer[0].weight)
    mask[:, [2, 9]] = 0
    prune.custom_from_mask(net.outer[0], "weight", mask)
    graph = trace_model(net, IMAGES)
    host = host_from_masks(net, graph)
    assert host.warnings == ()
    assert host.by_group["inner.0"].host_kept == tuple(c for c in range(24) if c not in (2, 9))
    torch.testing.assert_close(outputs(assert_taken_over(net, graph, host)), outputs(net), rtol=0, atol=1e-5)


def test_blocks_of_a_grouped_convolution_stay_even() -> None:
    net = silence_norms(small_net())
    with torch.no_grad():
        net.grouped[0].bias.zero_()
    mask_rows(net.grouped[0], [0, 6, 12, 18, 1])  # offset 0 in all four blocks, offset 1 in one
    graph = trace_model(net, IMAGES)
    host = host_from_masks(net, graph)
    assert host.host_widths["grouped.0"] == 20
    assert "1 channels are masked without those at the same place of the other 4 blocks" in " ".join(host.warnings)
    torch.testing.assert_close(outputs(assert_taken_over(net, graph, host)), outputs(net), rtol=0, atol=1e-5)


def test_single_masked_weights_stay_zero_and_are_named() -> None:
    net = silence_norms(small_net())
    mask_rows(net.inner[0], [0])
    prune.l1_unstructured(net.merge[0], "weight", amount=0.3)
    graph = trace_model(net, IMAGES)
    host = host_from_masks(net, graph)
    assert host.warnings == (
        "single weights are masked in merge.0.weight: within channels that stay they save no time",
    )
    pruned = assert_taken_over(net, graph, host)
    assert float((pruned.merge[0].weight == 0).float().mean()) == pytest.approx(0.3, abs=0.01)
    torch.testing.assert_close(outputs(pruned), outputs(net), rtol=0, atol=1e-5)


def test_masks_of_a_state_dict_are_as_good_as_those_on_the_model() -> None:
    masked = silence_norms(small_net())
    prune.ln_structured(masked.inner[0], "weight", amount=0.4, n=2, dim=0)
    prune.ln_structured(masked.merge[0], "weight", amount=0.4, n=2, dim=0)
    masks = {name: value for name, value in masked.state_dict().items() if name.endswith("_mask")}
    plain = silence_norms(small_net())
    graph = trace_model(plain, IMAGES)
    assert host_from_masks(plain, graph, masks) == host_from_masks(masked, graph)
    short = {name.removesuffix(".weight_mask"): mask for name, mask in masks.items()}
    assert host_from_masks(plain, graph, short) == host_from_masks(masked, graph)
    assert not prune.is_pruned(plain)


def test_growing_back_masked_channels_is_worth_nothing() -> None:
    net = silence_norms(small_net())
    mask_rows(net.inner[0], [0, 3, 5])
    graph = trace_model(net, IMAGES)
    host = host_from_masks(net, graph)
    scores = host.by_group["inner.0"]
    assert scores.kept_score(24) == scores.kept_score(21)
    plan = plan_widths(graph, host, latency=Stairs())
    assert plan.importance == pytest.approx(1) and plan.predicted_us <= plan.host_us
    small = apply_plan(net, plan)
    torch.testing.assert_close(outputs(small), outputs(net), rtol=0, atol=1e-5)


def masked_bits(net: nn.Module) -> None:
    prune.l1_unstructured(net.merge[0], "weight", amount=0.3)


@pytest.mark.parametrize(
    ("change", "masks", "said"),
    [
        (lambda net: None, None, "SmallNet carries no masks of torch.nn.utils.prune"),
        (masked_bits, None, "switch off single weights but no whole channel"),
        (lambda net: mask_rows(net.inner[0], list(range(24))), None, r"All 24 channels of inner\.0 are masked"),
        (lambda net: None, {"inner.1x.weight_mask": torch.ones(3)}, r"of another model: SmallNet has no parameter 'inner\.1x"),
        (lambda net: None, {"inner.0": torch.ones(24, 8, 3, 3)}, r"inner\.0 is \(24, 8, 3, 3\), but inner\.0\.weight of SmallNet is \(24, 16, 3, 3\)"),
        (lambda net: None, {"inner.0": [1, 0]}, r"inner\.0 is list, but"),
    ],
)  # fmt: skip
def test_bad_masks_are_refused_in_one_sentence(change, masks, said: str) -> None:
    net = silence_norms(small_net())
    change(net)
    with pytest.raises(InvalidShape, match=said) as caught:
        host_from_masks(net, GRAPH, masks)
    assert "\n" not in str(caught.value)


# --- zeros ----------------------------------------------------------------------------------------------------------


def test_zero_filters_leave_where_their_norms_pass_nothing() -> None:
    net = small_net()
    with torch.no_grad():
        net.inner[0].weight[[0, 3]] = 0
        net.inner[1].bias[0] = net.inner[1].running_mean[0] = 0  # channel 0 is silent
        net.inner[1].bias[3] = 5.0  # channel 3 is a constant
        net.expand[1].weight[9] = net.expand[1].bias[9] = 0  # the norm alone is enough
        net.depth[0].bias[9] = 0
        net.depth[1].bias[9] = net.depth[1].running_mean[9] = 0
    graph = trace_model(net, IMAGES)
    host = host_from_zeros(net, graph)
    assert host.by_group["inner.0"].host_kept == tuple(range(1, 24))
    assert host.by_group["expand.0"].host_kept == tuple(c for c in range(20) if c != 9)
    assert host.warnings[0].startswith("inner.0: 1 zeroed channels still pass on a constant")
    torch.testing.assert_close(outputs(assert_taken_over(net, graph, host)), outputs(net), rtol=0, atol=1e-5)
    assert host_from_zeros(net, graph, constants="remove").host_widths["inner.0"] == 22


def test_a_threshold_takes_small_filters_for_zero() -> None:
    net = silence_norms(small_net())
    with torch.no_grad():
        net.inner[0].weight[[2, 4]] *= 1e-6
    graph = trace_model(net, IMAGES)
    with pytest.raises(
        InvalidShape, match=r"No channel of SmallNet is zero at threshold 0: the smallest norm is .*e-0.*, in inner\.0"
    ):
        host_from_zeros(net, graph)
    host = host_from_zeros(net, graph, 1e-4)
    assert host.by_group["inner.0"].host_kept == tuple(c for c in range(24) if c not in (2, 4))
    assert [host.by_group["inner.0"].scores[c] for c in (2, 4)] == [0, 0]
    torch.testing.assert_close(outputs(assert_taken_over(net, graph, host)), outputs(net), rtol=0, atol=1e-3)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 1000), data=st.data())
def test_removing_zeros_changes_nothing(seed: int, data) -> None:
    """Whatever is zeroed, at the host's widths the network computes what it computed."""
    net = small_net(seed)
    places = [
        (net.stem, 16),
        (net.outer, 16),
        (net.inner, 24),
        (net.expand, 20),
        (net.depth, 20),
        (net.merge, 32),
        (net.grouped, 24),
    ]
    with torch.no_grad():
        for (conv, norm), width in places:
            # two stay: a depthwise convolution of one channel is an ordinary one to whoever traces it afresh
            rows = data.draw(st.lists(st.integers(0, width - 3), unique=True))
            kind = data.draw(st.sampled_from(["filter", "norm", "both", "scale"]))
            if kind in ("filter", "both"):
                conv.weight[rows] = 0
            if kind != "filter":
                norm.weight[rows] = 0
            if kind in ("norm", "both"):
                norm.bias[rows] = 0
    graph = trace_model(net, IMAGES)
    with torch.no_grad():
        net.inner[0].weight[0] = 0  # something is zero
    host = host_from_zeros(net, graph)
    torch.testing.assert_close(outputs(assert_taken_over(net, graph, host)), outputs(net), rtol=0, atol=1e-5)


def test_norms_over_channels_see_zeros() -> None:
    """A layer norm divides by how many channels there are: a zero channel counts."""

    class Normed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.norm, self.last = nn.Linear(12, 8), nn.LayerNorm(8), nn.Linear(8, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.last(self.norm(self.first(x)))

    net = Normed().eval()
    with torch.no_grad():
        net.first.weight[2] = net.first.bias[2] = 0
    graph = trace_model(net, torch.zeros(2, 12))
    host = host_from_zeros(net, graph)
    assert host.host_widths == {"first": 8}
    assert "first: 1 zeroed channels are still seen by a norm over channels: kept" in host.warnings[0]


@pytest.mark.parametrize("threshold", [-1.0, math.nan, math.inf])
def test_a_threshold_is_a_number(threshold: float) -> None:
    with pytest.raises(InvalidShape, match="The threshold of zero must be finite and at least 0"):
        host_from_zeros(NET, GRAPH, threshold)


def test_a_group_of_zeros_and_an_unknown_answer_are_refused() -> None:
    net = silence_norms(small_net())
    with torch.no_grad():
        net.inner[0].weight.zero_()
    with pytest.raises(InvalidShape, match=r"All 24 channels of inner\.0 are zeroed, and a layer without channels"):
        host_from_zeros(net, GRAPH)
    with pytest.raises(InvalidShape, match="Unknown answer to constants 'fold'; allowed: keep, remove"):
        host_from_zeros(net, GRAPH, constants="fold")


# --- one call -------------------------------------------------------------------------------------------------------


def test_prune_model_starts_from_any_host() -> None:
    host = host_from_widths(NET, GRAPH, {"inner.0": 17, "expand.0": 13, "merge.0": 0.4})
    small, plan = prune_model(NET, IMAGES, latency=Stairs(), host=host)
    assert plan.host_widths == host.host_widths
    assert plan.predicted_us <= plan.host_us and plan.moved
    assert small.inner[0].out_channels == plan.widths["inner.0"]


def test_prune_model_takes_one_host_only_and_no_ratio_of_1() -> None:
    host = host_from_widths(NET, GRAPH, {"inner.0": 17})
    with pytest.raises(InvalidShape, match="A host has chosen its channels already, so ratio= has no say"):
        prune_model(NET, IMAGES, latency=Stairs(), host=host, ratio=0.5)
    with pytest.raises(InvalidShape, match="a ratio of 1 leaves no channel"):
        prune_model(NET, IMAGES, latency=Stairs(), ratio=1.0)


def test_prune_model_scores_a_masked_model_as_it_computes() -> None:
    net = silence_norms(small_net())
    mask_rows(net.inner[0], [0, 3, 5])
    small, plan = prune_model(net, IMAGES, latency=Stairs(), ratio=0.3)
    assert small.inner[0].out_channels == plan.widths["inner.0"]
    assert verify_pruned(net, small, plan, IMAGES).ok


def test_a_model_on_another_device_than_its_input_is_refused_in_one_sentence() -> None:
    with pytest.raises(TraceError, match=r"meta.*cpu|cpu.*meta") as caught:
        prune_model(small_net().to("meta"), IMAGES, latency=Stairs())
    assert "\n" not in str(caught.value)


class Doubting(nn.Module):
    """Control flow that depends on data, and fails on these."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.sum() > 0:
            return self.head(self.conv(x))
        raise RuntimeError("no such branch")


def test_dynamic_control_flow_that_fails_is_refused_in_one_sentence() -> None:
    with pytest.raises(TraceError, match="Doubting does not run on the example inputs") as caught:
        prune_model(Doubting(), IMAGES, latency=Stairs())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("module", [pipelines, zeros])
def test_docstring_examples_of_hosts(module) -> None:
    results = doctest.testmod(module)
    assert results.attempted > 5
    assert not results.failed
