"""What cannot be cut is named with its reason, what can be cut is cut right, and a pruned network traces to the same groups."""

from __future__ import annotations

import copy
import math
import warnings

import pytest
import torch
import torch_pruning as tp
import torchvision
from torch import nn
from torch.nn.utils import parametrizations, prune

from tailprune.core.errors import TraceError
from tailprune.tracing import ChannelDependency, trace_model, trial

IMAGES = torch.zeros(1, 3, 8, 8)


class Attention(nn.Module):
    """Tokens through one attention layer: its channels belong to heads, and may leave only evenly."""

    def __init__(self, *, batch_first: bool = True) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(6, 24), nn.Linear(24, 5)
        self.mha = nn.MultiheadAttention(24, 4, batch_first=batch_first)

    def forward(self, x):
        x = self.a(x)
        return self.b(self.mha(x, x, x, need_weights=False)[0])


@pytest.mark.parametrize("batch_first", [True, False])
def test_attention_gives_its_group_one_block_a_head(batch_first):
    graph = trace_model(Attention(batch_first=batch_first), torch.zeros(2, 7, 6))
    group = graph.group("a")
    assert (group.prunable, group.granule, list(group.grid)) == (True, 4, [4, 8, 12, 16, 20, 24]), group.reason
    assert set(group.producers) == {"a", "mha"} and group.consumers == ("b",)
    attention = next(la.shape for la in graph.layers if la.name == "mha")
    assert (attention.op, attention.conv_groups, attention.in_channels) == ("attention", 4, 24)


def test_cutting_attention_takes_the_same_place_out_of_every_head():
    """Zeroed places of a head add nothing to its products; only the scale 1/sqrt(head width) is another one then."""
    torch.manual_seed(0)
    model = Attention()
    for bias in (model.mha.in_proj_bias, model.mha.out_proj.bias):
        nn.init.uniform_(bias)
    pruned, zeroed = copy.deepcopy(model), copy.deepcopy(model)
    dependency = ChannelDependency(pruned, torch.zeros(2, 7, 6))
    with pytest.raises(TraceError, match="granule 4"):
        dependency.remove("a", [0, 1, 2, 3])
    gone = [1, 7, 13, 19]
    dependency.remove("a", gone)
    assert (pruned.mha.embed_dim, pruned.mha.head_dim, pruned.mha.in_proj_weight.shape) == (20, 5, (60, 20))
    with torch.no_grad():
        for layer in (zeroed.a, zeroed.mha.out_proj):
            layer.weight[gone], layer.bias[gone] = 0, 0
        rows = [i + 24 * part for part in range(3) for i in gone]
        zeroed.mha.in_proj_weight[rows], zeroed.mha.in_proj_bias[rows] = 0, 0
        zeroed.mha.in_proj_weight[:24] *= math.sqrt(6 / 5)
        zeroed.mha.in_proj_bias[:24] *= math.sqrt(6 / 5)
        tokens = torch.randn(2, 7, 6)
        torch.testing.assert_close(pruned(tokens), zeroed(tokens))


def shuffled(x: torch.Tensor) -> torch.Tensor:
    batch, channels, rows, columns = x.shape
    return x.view(batch, 2, channels // 2, rows, columns).transpose(1, 2).reshape(batch, channels, rows, columns)


def test_a_channel_shuffle_is_named_as_the_obstacle():
    class Shuffle(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.inner, self.back = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 6, 1), nn.Conv2d(6, 8, 1)
            self.head = nn.Conv2d(8, 2, 1)

        def forward(self, x):
            return self.head(shuffled(self.back(self.inner(self.stem(x)))))

    graph = trace_model(Shuffle(), IMAGES)
    assert {g.id: g.reason for g in graph.groups if not g.prunable} == {
        "back": "a change of view mixes its channels with other dimensions", "head": "it is the network's output"}  # fmt: skip


def test_shufflenet_says_which_view_stands_in_the_way():
    graph = trace_model(torchvision.models.shufflenet_v2_x0_5(weights=None), torch.zeros(1, 3, 64, 64))
    assert len(graph.prunable_groups) == 18
    assert {g.reason for g in graph.groups if not g.prunable} == {
        "a change of view mixes its channels with other dimensions", "it is the network's output"}  # fmt: skip


def test_windows_of_tokens_keep_their_widths_and_the_layers_between_them_are_cut():
    model = torchvision.models.SwinTransformer([4, 4], 16, [2, 1], [2, 4], [4, 4], num_classes=3)
    graph = trace_model(model, torch.zeros(1, 3, 64, 64))
    hidden = {f"features.{stage}.mlp.0" for stage in ("1.0", "1.1", "3.0")}
    assert {g.id for g in graph.prunable_groups} == hidden
    assert any("relative_position_bias_table" in g.reason for g in graph.groups)
    assert any("a product of two activations" in why for why in graph.untraced)
    grid = torchvision.models.MaxVit((32, 32), 8, 4, [8, 16], [1, 1], 4, 0.0, num_classes=3)
    graph = trace_model(grid, torch.zeros(1, 3, 32, 32))
    assert len(graph.prunable_groups) >= 10
    residual = [g for g in graph.groups if g.reason.startswith("without some of its channels the model does not run")]
    assert [g.id for g in residual] == [f"blocks.{i}.layers.0.layers.MBconv.proj.1" for i in (0, 1)]


def test_depth_does_not_exhaust_the_search_for_what_is_joined():
    """Torch-Pruning gives up after 500 steps, and then fails on the sum of what it did not find."""
    model = torchvision.models.SwinTransformer([4, 4], 8, [1, 1, 16, 1], [2, 2, 2, 2], [2, 2], num_classes=3)
    graph = trace_model(model, torch.zeros(1, 3, 32, 32))
    assert len(graph.prunable_groups) == 18


def test_culprits_are_found_where_the_network_fails(monkeypatch):
    class Rigid(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.conv, self.width = nn.Conv2d(width, width, 1), width

        def forward(self, x):
            x = self.conv(x)
            return x.reshape(1, self.width, *x.shape[2:])

    runs = []
    record = trial.record
    monkeypatch.setattr(trial, "record", lambda *args: runs.append(1) or record(*args))
    layers: list[nn.Module] = [nn.Conv2d(3, 4, 1)]
    for width in range(4, 20):
        layers += [Rigid(width) if width % 5 == 0 else nn.Conv2d(width, width, 1), nn.Conv2d(width, width + 1, 1)]
    graph = trace_model(nn.Sequential(*layers), IMAGES)
    rigid = {f"{i}.conv" for i, module in enumerate(layers) if isinstance(module, Rigid)}
    fixed = {g.id: g.reason for g in graph.groups if not g.prunable}
    assert rigid == fixed.keys() - {str(len(layers) - 1)} and len(rigid) == 3
    assert all("the model does not run (RuntimeError: shape" in fixed[name] for name in rigid)
    assert len(graph.groups) == 33 and len(runs) <= 5 * len(rigid)


def test_a_grouped_convolution_stays_one_when_it_is_cut_to_the_least():
    """With one channel a block it would be taken for a depthwise one when traced again, and its groups would be others."""
    model = nn.Sequential(nn.Conv2d(3, 12, 1), nn.Conv2d(12, 24, 3, groups=4), nn.ReLU(), nn.Conv2d(24, 2, 1))
    graph = trace_model(model, IMAGES)
    dependency = ChannelDependency(model, IMAGES)
    least = {group.id: group.grid[0] for group in graph.prunable_groups}
    assert least == {"0": 8, "1": 8}
    for group_id, width in least.items():
        block = graph.group(group_id).width // 4
        dependency.remove(group_id, [i + block * b for b in range(4) for i in range(width // 4, block)])
    again = trace_model(model, IMAGES)
    assert again.widths == {**graph.widths, **least}
    assert [g.reason for g in again.groups] == [
        "its blocks are as narrow as they may be", "its blocks are as narrow as they may be", "it is the network's output"]  # fmt: skip


def test_a_depthwise_convolution_keeps_two_channels():
    """Of one channel it would be an ordinary convolution when traced again, with a group of its own."""
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 2, 1))
    graph = trace_model(model, IMAGES)
    assert graph.group("0").grid[0] == 2
    ChannelDependency(model, IMAGES).remove("0", range(6))
    assert trace_model(model, IMAGES).widths == {"0": 2, "2": 2}


def test_a_removal_that_is_not_the_traced_one_is_refused():
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 6, 1), nn.Conv2d(6, 2, 1))
    dependency = ChannelDependency(model, IMAGES)
    tp.prune_conv_in_channels(model[1], [0])  # behind its back
    dependency._left["1", "in"].remove(0)
    with pytest.raises(TraceError, match="would take other channels out of group 0 than were traced"):
        dependency.remove("0", [5])
    assert model[0].out_channels == 8


class Parts(nn.Module):
    """Two parts of a wide layer go two ways; `flipped` changes nothing but the order in which a tracer meets them."""

    def __init__(self, first: int, second: int, *, flipped: bool, chunk: bool = False) -> None:
        super().__init__()
        self.wide, self.peer = nn.Conv2d(3, first + second, 1), nn.Conv2d(3, first, 1)
        self.left, self.right, self.head = nn.Conv2d(first, 4, 1), nn.Conv2d(second, 4, 1), nn.Conv2d(4, 2, 1)
        self.flipped, self.chunk = flipped, chunk

    def forward(self, x):
        sizes = [self.peer.out_channels, self.right.in_channels]
        left, right = self.wide(x).chunk(2, 1) if self.chunk else self.wide(x).split(sizes, 1)
        if self.flipped:
            return self.head(self.right(right) + self.left(self.peer(x) + left))
        return self.head(self.left(left + self.peer(x)) + self.right(right))


@pytest.mark.parametrize("flipped", [False, True])
@pytest.mark.parametrize("sizes", [(5, 5), (4, 6)])
@pytest.mark.parametrize("host", [False, True])
def test_parts_of_a_split_keep_their_order_and_their_ids(sizes, flipped, host):
    """Torch-Pruning 1.6.1 takes the readers of a split as it meets them: with equal parts no shape would show it."""
    torch.manual_seed(0)
    model = Parts(*sizes, flipped=flipped)
    zeroed = copy.deepcopy(model)
    graph = tp.DependencyGraph().build_dependency(model, IMAGES, verbose=False) if host else None
    dependency = ChannelDependency(model, IMAGES, graph=graph)
    assert {g.id: g.width for g in dependency.groups} == {"peer": sizes[0], "wide:2": sizes[1], "left": 4, "head": 2}
    ids = [group.id for group in dependency.groups]
    dependency.remove("peer", [0, 2])
    dependency.remove("wide:2", [sizes[0] + 1])
    with torch.no_grad():
        for layer, gone in ((zeroed.peer, [0, 2]), (zeroed.wide, [0, 2, sizes[0] + 1])):
            layer.weight[gone], layer.bias[gone] = 0, 0
        images = torch.randn(1, 3, 8, 8)
        torch.testing.assert_close(model(images), zeroed(images))
    assert [group.id for group in ChannelDependency(model, IMAGES).groups] == ids


def test_parts_that_must_stay_equal_are_not_cut():
    reasons = {g.id: g.reason for g in trace_model(Parts(8, 8, flipped=False, chunk=True), IMAGES).groups}
    assert reasons["peer"] == reasons["wide:2"] == "it is split into equal parts, which must stay equal"
    assert not reasons["left"]


def test_a_stage_that_joins_half_of_what_it_split_is_cut_around_it():
    """Half of a wide layer goes on, half is joined again at the end: its width is fixed, those between are not."""

    class CrossStage(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.wide = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 12, 1)
            self.inner, self.back = nn.Conv2d(6, 10, 1), nn.Conv2d(10, 6, 1)
            self.join, self.head = nn.Conv2d(12, 8, 1), nn.Conv2d(8, 2, 1)

        def forward(self, x):
            kept, going = self.wide(self.stem(x)).split(6, 1)
            return self.head(self.join(torch.cat([kept, self.back(self.inner(going))], 1)))

    torch.manual_seed(0)
    model = CrossStage()
    graph = trace_model(model, IMAGES)
    assert {g.id for g in graph.prunable_groups} == {"stem", "inner", "back", "join"}
    join, cat = (next(la for la in graph.layers if la.name == name) for name in ("join", "cat"))
    assert str(join.in_expr) == str(cat.in_expr) == "back + 6"
    zeroed = copy.deepcopy(model)
    ChannelDependency(model, IMAGES).remove("back", [0, 4])
    with torch.no_grad():
        zeroed.back.weight[[0, 4]], zeroed.back.bias[[0, 4]] = 0, 0
        images = torch.randn(1, 3, 8, 8)
        torch.testing.assert_close(model(images), zeroed(images))


def test_channels_read_as_a_sequence_keep_their_places():
    class Efficient(nn.Module):
        """Attention over neighbouring channels: taking one out would make others neighbours."""

        def __init__(self) -> None:
            super().__init__()
            self.stem, self.near = nn.Conv2d(3, 8, 1), nn.Conv1d(1, 1, 3, padding=1)
            self.after, self.head = nn.Conv2d(8, 6, 1), nn.Conv2d(6, 2, 1)

        def forward(self, x):
            x = self.stem(x)
            y = self.near(x.mean((2, 3)).view(x.shape[0], 1, -1)).sigmoid()
            return self.head(self.after(x * y.view(x.shape[0], -1, 1, 1)))

    reasons = {g.id: g.reason for g in trace_model(Efficient(), IMAGES).groups}
    assert reasons["stem"] == "a change of view mixes its channels with other dimensions" and not reasons["after"]


def test_a_scale_shaped_to_meet_images_is_cut_with_them():
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.gamma, self.head = nn.Conv2d(3, 8, 1), nn.Parameter(torch.rand(8)), nn.Conv2d(8, 2, 1)

        def forward(self, x):
            return self.head(self.conv(x) * self.gamma.reshape(1, -1, 1, 1))

    model = Scaled()
    assert trace_model(model, IMAGES).group("conv").prunable
    ChannelDependency(model, IMAGES).remove("conv", [1])
    assert model.gamma.shape == (7,) and model(IMAGES).shape == (1, 2, 8, 8)


def test_slices_that_tie_layers_in_a_circle_come_to_an_end():
    class Shortcut(nn.Module):
        def __init__(self, inner: int, outer: int) -> None:
            super().__init__()
            self.conv, self.inner = nn.Conv2d(inner, outer, 1), inner

        def forward(self, x):
            y = self.conv(x)
            return torch.cat([y[:, : self.inner] + x, y[:, self.inner :]], 1)

    model = nn.Sequential(
        nn.Conv2d(3, 4, 1), Shortcut(4, 6), Shortcut(6, 9), Shortcut(9, 11), nn.Conv2d(11, 8, 1), nn.Conv2d(8, 2, 1)
    )
    graph = trace_model(model, IMAGES)
    assert graph.group("4").prunable and not any(g.prunable for g in graph.groups if "conv" in g.id)


@pytest.mark.parametrize(
    ("wrap", "tool", "remedy"),
    [
        (nn.utils.weight_norm, "weight_norm", "torch.nn.utils.remove_weight_norm"),
        (nn.utils.spectral_norm, "spectral_norm", "torch.nn.utils.remove_spectral_norm"),
        (parametrizations.weight_norm, "parametrize", "torch.nn.utils.parametrize.remove_parametrizations"),
        (parametrizations.orthogonal, "parametrize", "torch.nn.utils.parametrize.remove_parametrizations"),
    ],
)
def test_a_weight_that_is_computed_anew_is_refused_with_the_remedy(wrap, tool, remedy):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = nn.Sequential(nn.Conv2d(3, 8, 3), wrap(nn.Conv2d(8, 8, 3)))
    for ask in (trace_model, ChannelDependency):
        with pytest.raises(TraceError, match=r"^[^\n]*$") as caught:
            ask(model, IMAGES)
        assert f"Layer 1 computes its weight anew in each forward pass ({tool})" in str(caught.value)
        assert str(caught.value).endswith(f"with {remedy}.")


def test_the_remedy_works():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = nn.Sequential(
            nn.utils.weight_norm(nn.Conv2d(3, 8, 3)), parametrizations.weight_norm(nn.Conv2d(8, 2, 3))
        )
        nn.utils.remove_weight_norm(model[0])
    nn.utils.parametrize.remove_parametrizations(model[1], "weight")
    assert trace_model(model, IMAGES).group("0").prunable


def test_masked_layers_trace_as_if_their_masks_were_settled():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 2, 3))
    plain = trace_model(model, IMAGES)
    prune.ln_structured(model[0], "weight", 0.5, n=2, dim=0)
    assert trace_model(model, IMAGES) == plain
    assert prune.is_pruned(model)


@pytest.mark.parametrize(
    ("model", "inputs", "sentence"),
    [
        (
            nn.Linear(3, 4).double(),
            torch.zeros(1, 3).double(),
            "Layers of float64 cannot be timed, only those of float32, tf32, float16, bfloat16, int8; convert model and "
            "inputs first, with .float().",
        ),
        (
            nn.Linear(3, 4),
            torch.zeros(1, 3, device="meta"),
            "The model lies on cpu, the example inputs on meta; move them to one device, such as inputs.to('cpu').",
        ),
        (
            nn.Linear(3, 4, device="meta"),
            (torch.zeros(1, 3), None),
            "The model lies on meta, the example inputs on cpu; move them to one device, such as inputs.to('meta').",
        ),
    ],
)
def test_other_dtypes_and_devices_are_refused_in_these_words(model, inputs, sentence):
    with pytest.raises(TraceError) as caught:
        trace_model(model, inputs)
    assert str(caught.value) == sentence
