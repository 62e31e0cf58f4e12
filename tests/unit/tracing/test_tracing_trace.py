"""What trace_model finds in networks small enough to check by hand, and in the families that set traps."""

from __future__ import annotations

import copy

import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional as F

from tailprune.core.errors import InvalidShape, TraceError
from tailprune.core.graph import ModelGraph
from tailprune.tracing import trace_model


def layer(graph: ModelGraph, name: str):
    return next(la for la in graph.layers if la.name == name)


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.left = nn.Conv2d(8, 8, 3, stride=1, padding=2, dilation=2)
        self.pool = nn.MaxPool2d(2)
        self.right = nn.Conv2d(8, 12, (1, 3), stride=(1, 2), padding=(0, 1))
        self.head = nn.Linear(12 * 4 * 2, 5)

    def forward(self, x):
        x = F.relu(self.norm(self.stem(x)))
        x = F.relu(self.left(x) + x, inplace=True)
        return self.head(torch.flatten(F.hardswish(self.right(self.pool(x))), 1))


def test_blocks_geometry_and_widths_of_a_residual_network():
    graph = trace_model(Residual(), torch.zeros(4, 3, 8, 8))
    assert [str(la.shape) for la in graph.layers] == [
        "conv 3x3+bias+relu 3->8 at 8x8, batch 4, float32",
        "conv 3x3+bias+add+relu 8->8 at 8x8, batch 4, float32",
        "max_pool 8->8 at 8x8, batch 4, float32",
        "conv 1x3 stride 1+bias+hardswish 8->12 at 4x4, batch 4, float32",
        "linear+bias 96->5 at 1x1, batch 4, float32",
    ]
    assert [la.norm for la in graph.layers] == ["norm", None, None, None, None]
    assert layer(graph, "left").shape.dilation_hw == (2, 2)
    assert (layer(graph, "right").shape.stride_hw, layer(graph, "right").shape.out_hw) == ((1, 2), (4, 2))
    assert [(g.id, g.width, g.prunable, g.reason) for g in graph.groups] == [
        ("stem", 8, True, ""), ("right", 12, True, ""), ("head", 5, False, "it is the network's output")]  # fmt: skip
    assert graph.group("stem").producers == ("stem", "left")
    assert set(graph.group("stem").consumers) == {"left", "right"}
    assert str(layer(graph, "head").in_expr) == "8 x right"
    assert str(layer(graph, "pool").in_expr) == "stem"
    assert (graph.model, graph.input_shape, graph.memory_format, graph.untraced) == (
        "Residual",
        (4, 3, 8, 8),
        "contiguous",
        (),
    )


def test_dtype_and_memory_format_are_those_of_the_model():
    model = Residual().to(torch.bfloat16).to(memory_format=torch.channels_last)
    graph = trace_model(model, torch.zeros(1, 3, 8, 8, dtype=torch.bfloat16))
    assert {(la.shape.dtype, la.shape.memory_format) for la in graph.layers} == {("bfloat16", "channels_last")}
    assert (graph.dtype, graph.memory_format) == ("bfloat16", "channels_last")


def test_tracing_leaves_no_mark_on_the_model():
    model = Residual().train()
    model.left.eval()
    model.stem.weight.requires_grad_(False)
    model.head.weight.grad = torch.ones_like(model.head.weight)
    seen = []
    handle = model.left.register_forward_hook(lambda *_: seen.append(1))
    tensors = {
        name: (id(t), t.data_ptr(), t._version, t.clone()) for name, t in model.state_dict(keep_vars=True).items()
    }
    modes = [module.training for module in model.modules()]
    with torch.inference_mode():
        trace_model(model, torch.zeros(1, 3, 8, 8))
    after = model.state_dict(keep_vars=True)
    assert list(after) == list(tensors)
    for name, (identity, address, version, value) in tensors.items():
        now = after[name]
        assert (id(now), now.data_ptr(), now._version) == (identity, address, version)
        assert torch.equal(now, value)
    assert [module.training for module in model.modules()] == modes
    assert not model.stem.weight.requires_grad and model.left.weight.requires_grad
    assert torch.equal(model.head.weight.grad, torch.ones_like(model.head.weight)) and model.left.weight.grad is None
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._backward_hooks) for m in model.modules()]
    assert sum(hooks) == 1 and not seen
    handle.remove()


def test_a_module_called_twice_costs_twice():
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv2d(3, 6, 1)
            self.again = nn.Sequential(nn.Conv2d(6, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU())
            self.last = nn.Conv2d(6, 2, 1)

        def forward(self, x):
            return self.last(self.again(self.again(self.first(x))))

    graph = trace_model(Twice(), torch.zeros(1, 3, 4, 4))
    assert [(la.name, la.calls, la.norm) for la in graph.layers] == [
        ("first", 1, None), ("again.0", 2, "again.1"), ("last", 1, None)]  # fmt: skip
    assert graph.macs_at() == 16 * (3 * 6 + 2 * 9 * 36 + 6 * 2)
    assert graph.group("first").prunable and set(graph.group("first").producers) == {"first", "again.0"}


def test_a_shared_module_at_two_sizes_is_two_layers():
    class Pyramid(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.head = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1)

        def forward(self, x):
            x = self.stem(x)
            return self.head(x), self.head(F.max_pool2d(x, 2))

    graph = trace_model(Pyramid(), torch.zeros(1, 3, 8, 8))
    assert [(la.name, la.shape.in_hw) for la in graph.layers] == [
        ("stem", (8, 8)), ("head", (8, 8)), ("max_pool2d", (8, 8)), ("head:2", (4, 4))]  # fmt: skip
    assert graph.group("head").reason == "it is the network's output"


def test_a_norm_that_others_also_read_around_is_not_folded():
    class Tapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)
            self.head = nn.Conv2d(4, 2, 1)

        def forward(self, x):
            y = self.conv(x)
            return self.head(torch.relu(self.norm(y)) + y)

    graph = trace_model(Tapped(), torch.zeros(1, 3, 4, 4))
    assert [(la.name, la.shape.op, la.shape.epilogue, la.norm) for la in graph.layers] == [
        ("conv", "conv", ("bias",), None),
        ("norm", "elementwise", ("batch_norm", "relu", "add"), None),
        ("head", "conv", ("bias",), None),
    ]


def test_two_inputs_and_a_linear_layer_over_tokens():
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(6, 16), nn.Linear(10, 16)
            self.head = nn.Linear(16, 3)

        def forward(self, a, b):
            return self.head(F.gelu(self.a(a) + self.b(b)))

    graph = trace_model(Two(), (torch.zeros(2, 7, 6), torch.zeros(2, 7, 10)))
    assert [(la.name, la.shape.in_hw, la.shape.epilogue) for la in graph.layers] == [
        ("a", (7, 1), ("bias",)), ("b", (7, 1), ("bias", "add", "gelu")), ("head", (7, 1), ("bias",))]  # fmt: skip
    assert graph.macs_at() == 2 * 7 * (6 * 16 + 10 * 16 + 16 * 3)
    assert graph.group("a").producers == ("a", "b") and graph.group("a").prunable


def test_control_flow_that_depends_on_data_traces_what_ran():
    class Gate(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.bright, self.dark = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 1)
            self.head = nn.Conv2d(4, 2, 1)

        def forward(self, x):
            branch = self.bright if x.mean() > 0 else self.dark
            return self.head(branch(self.stem(x)))

    graph = trace_model(Gate(), torch.ones(1, 3, 4, 4))
    assert [la.name for la in graph.layers if la.shape.op == "conv"] == ["stem", "bright", "head"]
    assert graph.untraced == ("dark: it does not run in evaluation mode",)
    assert any("reads values" in warning for warning in graph.warnings)
    graph = trace_model(Gate(), -torch.ones(1, 3, 4, 4))
    assert [la.name for la in graph.layers if la.shape.op == "conv"] == ["stem", "dark", "head"]


def test_a_grouped_convolution_gives_its_group_a_granule():
    model = nn.Sequential(nn.Conv2d(3, 12, 1), nn.Conv2d(12, 24, 3, groups=4), nn.ReLU(), nn.Conv2d(24, 2, 1))
    graph = trace_model(model, torch.zeros(1, 3, 6, 6))
    assert [(g.id, g.granule, g.min_width, list(g.grid)[:2]) for g in graph.groups[:2]] == [
        ("0", 4, 8, [8, 12]), ("1", 4, 8, [8, 12])]  # fmt: skip
    assert layer(graph, "1").shape_at({"0": 8, "1": 12, "3": 2}).conv_groups == 4


def test_a_depthwise_convolution_follows_its_producer():
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.Conv2d(8, 2, 1))
    graph = trace_model(model, torch.zeros(1, 3, 6, 6))
    depthwise = layer(graph, "1")
    assert depthwise.shape.depthwise and str(depthwise.in_expr) == str(depthwise.out_expr) == "0"
    assert depthwise.shape_at({"0": 5, "2": 2}).conv_groups == 5


def test_squeeze_excite_runs_as_a_product_of_its_own():
    graph = trace_model(torchvision.models.mobilenet_v3_small(weights=None), torch.zeros(1, 3, 64, 64))
    product = layer(graph, "features.1.block.1.mul")
    assert (product.shape.op, product.shape.epilogue, product.shape.in_hw) == ("elementwise", ("mul",), (16, 16))
    assert str(product.in_expr) == "features.0.0"
    assert layer(graph, "features.1.block.1.fc2").shape.epilogue == ("bias", "hardsigmoid")


def test_densenet_concatenation_has_a_term_per_source():
    graph = trace_model(torchvision.models.densenet121(weights=None), torch.zeros(1, 3, 32, 32))
    last = layer(graph, "classifier").in_expr
    assert len(last.terms) == 17 and last.constant == 0 and {times for _, times in last.terms} == {1}
    third = layer(graph, "features.denseblock3.denselayer24.conv1").in_expr
    assert len(third.terms) == 24
    before = layer(graph, "features.denseblock1.denselayer2.norm1")
    assert before.shape.epilogue == ("batch_norm", "relu")
    assert str(before.in_expr) == "features.conv0 + features.denseblock1.denselayer1.conv2"


def test_convnext_norms_and_layer_scale():
    model = torchvision.models.ConvNeXt([torchvision.models.convnext.CNBlockConfig(16, None, 2)], num_classes=4)
    graph = trace_model(model, torch.zeros(1, 3, 32, 32))
    assert layer(graph, "features.1.0.block.2").shape.epilogue == ("layer_norm",)
    assert layer(graph, "features.1.0.block.5").shape.epilogue == ("bias", "scale", "add")
    assert [g.prunable for g in graph.groups] == [True, True, True, False]


def test_attention_is_one_layer_and_bare_embeddings_are_not_pruned():
    model = torchvision.models.VisionTransformer(32, 16, 1, 4, 24, 48, num_classes=3)
    graph = trace_model(model, torch.zeros(2, 3, 32, 32))
    attention = layer(graph, "encoder.layers.encoder_layer_0.self_attention")
    assert (attention.shape.op, attention.shape.in_hw, attention.shape.batch, attention.shape.conv_groups) == (
        "attention", (5, 1), 2, 4)  # fmt: skip
    assert attention.shape.epilogue == ("bias", "add")
    assert not graph.group("conv_proj").prunable
    assert "bare parameter" in graph.group("conv_proj").reason
    assert graph.group("encoder.layers.encoder_layer_0.mlp.0").prunable


def test_auxiliary_heads_are_untraced_and_said_to_break_training():
    model = torchvision.models.googlenet(weights=None, init_weights=False)
    graph = trace_model(model, torch.zeros(1, 3, 64, 64))
    assert graph.untraced == ("aux1: it does not run in evaluation mode", "aux2: it does not run in evaluation mode")
    assert any("training mode" in warning for warning in graph.warnings)


def test_a_sum_with_the_image_cannot_be_pruned():
    class Global(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.head = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 2, 1)

        def forward(self, x):
            return self.head(self.conv(x) + x)

    graph = trace_model(Global(), torch.zeros(1, 3, 8, 8))
    assert "does not run" in graph.group("conv").reason


def test_a_concatenation_with_the_image_cannot_be_pruned():
    class Coordinates(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.head = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(11, 2, 1)

        def forward(self, x):
            return self.head(torch.cat([x, self.conv(x)], 1))

    graph = trace_model(Coordinates(), torch.zeros(1, 3, 8, 8))
    assert graph.group("conv").reason == "it is concatenated with a tensor that has no producer"
    assert layer(graph, "cat").shape.in_channels == 11


def test_a_wide_producer_falls_into_the_groups_of_its_peers():
    class Split(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.wide, self.a, self.b = nn.Conv2d(3, 10, 1), nn.Conv2d(3, 4, 1), nn.Conv2d(3, 6, 1)
            self.head = nn.Conv2d(10, 2, 1)

        def forward(self, x):
            return self.head(torch.relu(self.wide(x) + torch.cat([self.a(x), self.b(x)], 1)))

    graph = trace_model(Split(), torch.zeros(1, 3, 4, 4))
    assert {g.id: (g.width, g.prunable) for g in graph.groups} == {"a": (4, True), "b": (6, True), "head": (2, False)}
    assert str(layer(graph, "wide").out_expr) == str(layer(graph, "head").in_expr) == "a + b"


def test_integers_that_forward_reads_are_found_by_the_trial():
    class Fixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.head, self.free = nn.Conv2d(3, 8, 1), nn.Linear(8, 2), nn.Linear(3, 16)
            self.back = nn.Linear(16, 8)

        def forward(self, x):
            x = self.conv(x).mean((2, 3)) + self.back(torch.relu(self.free(x.mean((2, 3)))))
            return self.head(x.reshape(x.shape[0], 8))

    graph = trace_model(Fixed(), torch.zeros(1, 3, 4, 4))
    assert "does not run" in graph.group("conv").reason and graph.group("free").prunable


def test_what_has_no_shape_is_untraced_and_its_channels_stay():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ConvTranspose2d(8, 8, 2, stride=2), nn.Conv2d(8, 2, 1))
    graph = trace_model(model, torch.zeros(1, 3, 8, 8))
    assert graph.untraced == ("1: a transposed convolution has no shape here",)
    assert [g.prunable for g in graph.groups] == [False, False, False]
    assert graph.group("1").reason.startswith("1: a transposed convolution")


def test_equal_networks_have_equal_fingerprints_whatever_weights_and_batch():
    one, two = trace_model(Residual(), torch.zeros(1, 3, 8, 8)), trace_model(Residual(), torch.ones(3, 3, 8, 8))
    other = copy.deepcopy(Residual())
    other.right = nn.Conv2d(8, 12, (3, 3), stride=(1, 2), padding=(1, 1))
    assert one.fingerprint == two.fingerprint != trace_model(other, torch.zeros(1, 3, 8, 8)).fingerprint


def test_layers_can_be_asked_for_in_the_dtype_they_will_run_in():
    one, half = (trace_model(Residual(), torch.zeros(1, 3, 8, 8), dtype=dtype) for dtype in (None, "float16"))
    assert (one.dtype, half.dtype) == ("float32", "float16")
    assert {layer.shape.dtype for layer in half.layers} == {"float16"}
    assert one.fingerprint == half.fingerprint
    with pytest.raises(InvalidShape, match="Unknown dtype 'half'; allowed: float32, tf32, float16, bfloat16, int8"):
        trace_model(Residual(), torch.zeros(1, 3, 8, 8), dtype="half")


@pytest.mark.parametrize(
    ("model", "inputs", "words"),
    [
        (nn.Conv2d(3, 4, 3), torch.zeros(1, 5, 8, 8), "does not run on the example inputs (1, 5, 8, 8)"),
        (nn.Conv2d(3, 4, 3), "image", "must be a tensor or a tuple with a tensor in it, got str"),
        (lambda x: x, torch.zeros(1), "Only a torch.nn.Module can be traced, got function"),
        (nn.Linear(3, 4).double(), torch.zeros(1, 3).double(), "Layers of float64 cannot be timed"),
        (nn.Linear(3, 4), torch.zeros(1, 3, device="meta"), "The model lies on cpu, the example inputs on meta"),
        (torch.jit.script(nn.Linear(3, 4)), torch.zeros(1, 3), "A scripted model cannot be traced"),
        (nn.ReLU(), torch.zeros(1, 3), "ReLU has no convolution or linear layer that runs"),
    ],
)
def test_what_cannot_be_traced_is_said_in_one_sentence(model, inputs, words):
    with pytest.raises(TraceError) as caught:
        trace_model(model, inputs)
    assert words in str(caught.value) and "\n" not in str(caught.value)
    assert caught.value.__cause__ is None and (caught.value.__context__ is None or caught.value.__suppress_context__)
