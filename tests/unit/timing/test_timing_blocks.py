"""A built block has the shape it was asked for, computes what the network would, and leaves the shared numbers alone."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tailprune.core.errors import InvalidShape
from tailprune.core.shapes import EPILOGUE_OPS, LayerShape
from tailprune.timing import build_block
from tailprune.timing.random_data import RandomBank

BANK = RandomBank("cpu")


def run(shape: LayerShape, bank: RandomBank = BANK) -> torch.Tensor:
    with torch.inference_mode():
        return build_block(shape, bank)()


@st.composite
def conv_shapes(draw: st.DrawFn) -> LayerShape:
    groups = draw(st.sampled_from([1, 1, 2, 4]))
    side = st.integers(1, 3)
    return LayerShape(
        op="conv", batch=draw(st.integers(1, 3)), in_channels=groups * draw(st.integers(1, 5)), out_channels=groups * draw(st.integers(1, 5)),
        in_hw=(draw(st.integers(7, 12)), draw(st.integers(7, 12))), kernel_hw=(draw(side), draw(side)), stride_hw=(draw(side), draw(side)),
        padding_hw=(draw(st.integers(0, 2)), draw(st.integers(0, 2))), dilation_hw=(draw(side), draw(side)), conv_groups=groups,
        memory_format=draw(st.sampled_from(["channels_last", "contiguous"])),
        epilogue=draw(st.sampled_from([(), ("bias",), ("bias", "relu"), ("bias", "add", "relu"), ("silu", "mul"), ("relu", "bias"), ("cat",)])),
    )  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(conv_shapes())
def test_output_has_the_shape_and_layout_of_the_layer(shape: LayerShape) -> None:
    result = run(shape)
    assert tuple(result.shape) == (shape.batch, shape.out_channels, *shape.out_hw)
    layout = torch.channels_last if shape.memory_format == "channels_last" else torch.contiguous_format
    assert result.is_contiguous(memory_format=layout)


@pytest.mark.parametrize("epilogue", EPILOGUE_OPS)
@pytest.mark.parametrize(
    ("layer", "size"),
    [
        ({"op": "conv", "out_channels": 12, "in_hw": (6, 5), "kernel_hw": (2, 2)}, (2, 12, 5, 4)),
        ({"op": "conv", "conv_groups": 8, "in_hw": (6, 5), "kernel_hw": (3, 3), "padding_hw": (1, 1)}, (2, 8, 6, 5)),
        ({"op": "linear", "out_channels": 12}, (2, 12)),
        ({"op": "linear", "out_channels": 12, "in_hw": (7, 1)}, (2, 7, 12)),
        ({"op": "attention", "in_hw": (7, 1), "conv_groups": 4}, (2, 7, 8)),
        ({"op": "max_pool", "in_hw": (9, 9), "kernel_hw": (3, 3), "stride_hw": (2, 2), "padding_hw": (1, 1)}, (2, 8, 5, 5)),
        ({"op": "avg_pool", "in_hw": (4, 4), "kernel_hw": (2, 2), "stride_hw": (2, 2)}, (2, 8, 2, 2)),
        ({"op": "avg_pool", "in_hw": (4, 4), "kernel_hw": (4, 4)}, (2, 8, 1, 1)),
        ({"op": "elementwise", "in_hw": (4, 5)}, (2, 8, 4, 5)),
    ],
)  # fmt: skip
def test_every_op_runs_with_every_epilogue(layer: dict[str, object], size: tuple[int, ...], epilogue: str) -> None:
    shape = LayerShape(**{"batch": 2, "in_channels": 8, "out_channels": 8, **layer}, epilogue=(epilogue, "relu"))
    if epilogue == "local_response_norm" and len(size) < 4:
        with pytest.raises(InvalidShape, match="over the channels of maps"):
            run(shape)
        return
    result = run(shape)
    assert tuple(result.shape) == size
    assert torch.isfinite(result).all()


@pytest.mark.parametrize("epilogue", [("relu",), ("add", "relu"), ("mul",), ("silu", "relu6"), ("copy", "relu")])
def test_elementwise_blocks_leave_their_inputs_as_they_were(epilogue: tuple[str, ...]) -> None:
    bank = RandomBank("cpu")
    block = build_block(
        LayerShape(op="elementwise", batch=1, in_channels=8, out_channels=8, in_hw=(4, 4), epilogue=epilogue), bank
    )
    before = [tensor.clone() for tensor in block.inputs]
    first, second = block(), block()
    assert torch.equal(first, second)
    assert all(torch.equal(old, new) for old, new in zip(before, block.inputs, strict=True))


def test_computes_what_a_network_with_its_norm_folded_would() -> None:
    shape = LayerShape(op="conv", batch=2, in_channels=6, out_channels=10, in_hw=(8, 8), kernel_hw=(3, 3), stride_hw=(2, 2),
                       padding_hw=(1, 1), epilogue=("bias", "add", "relu"))  # fmt: skip
    block = build_block(shape, BANK)
    x, identity = block.inputs
    conv = block.module.layer
    with torch.no_grad():
        expected = torch.relu(nn.functional.conv2d(x, conv.weight, conv.bias, 2, 1) + identity)
        torch.testing.assert_close(block(), expected)


def test_attention_is_scaled_dot_product_with_projections() -> None:
    shape = LayerShape(
        op="attention", batch=2, in_channels=12, out_channels=8, in_hw=(5, 1), conv_groups=2, epilogue=("bias",)
    )
    block = build_block(shape, BANK)
    layer = block.module.layer
    with torch.no_grad():
        projected = layer.project_in(block.inputs[0]).view(2, 5, 3, 2, 4)
        query, key, value = (projected[:, :, i].transpose(1, 2) for i in range(3))
        weights = torch.softmax(query @ key.transpose(-1, -2) / 4**0.5, dim=-1)
        expected = layer.project_out((weights @ value).transpose(1, 2).reshape(2, 5, 8))
        torch.testing.assert_close(block(), expected)


def test_weights_keep_the_scale_of_their_input() -> None:
    shape = LayerShape(op="conv", batch=2, in_channels=64, out_channels=64, in_hw=(12, 12), kernel_hw=(3, 3))
    block = build_block(shape, BANK)
    weight = block.module.layer.weight
    assert weight.std().item() == pytest.approx((64 * 9) ** -0.5, rel=0.05)
    assert weight.abs().min() >= 0
    assert (weight == 0).float().mean() < 0.01
    assert block.inputs[0].std().item() == pytest.approx(1, rel=0.05)
    assert run(shape).std().item() == pytest.approx(1, rel=0.4)


@pytest.mark.parametrize("memory_format", ["channels_last", "contiguous"])
def test_depthwise_weights_have_the_strides_of_a_converted_model(memory_format: str) -> None:
    layout = torch.channels_last if memory_format == "channels_last" else torch.contiguous_format
    model = nn.Conv2d(8, 8, 3, groups=8).to(memory_format=layout)
    shape = LayerShape(op="conv", batch=1, in_channels=8, out_channels=8, in_hw=(5, 5), kernel_hw=(3, 3), conv_groups=8,
                       memory_format=memory_format)  # fmt: skip
    assert build_block(shape, BANK).module.layer.weight.stride() == model.weight.stride()


def test_inputs_are_shared_and_operands_are_not_the_input() -> None:
    shape = LayerShape(op="conv", batch=1, in_channels=8, out_channels=8, in_hw=(4, 4), epilogue=("add",))
    first, second = build_block(shape, BANK), build_block(shape, BANK)
    assert first.inputs[0].data_ptr() == second.inputs[0].data_ptr()
    x, operand = first.inputs
    assert abs(operand.data_ptr() - x.data_ptr()) >= x.numel() * x.element_size()
    assert x.data_ptr() % 64 == operand.data_ptr() % 64 == 0


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_stays_half(dtype: str) -> None:
    shape = LayerShape(
        op="conv", batch=1, in_channels=8, out_channels=8, in_hw=(4, 4), dtype=dtype, epilogue=("bias", "relu")
    )
    assert str(run(shape).dtype) == f"torch.{dtype}"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dtype": "int8"}, "Eager PyTorch runs no int8 conv layer"),
        ({"op": "attention", "conv_groups": 3}, "Attention of 8 channels cannot have 3 heads"),
        ({"op": "avg_pool", "in_hw": (9, 9), "kernel_hw": (2, 2), "dilation_hw": (2, 2)}, "no average pool with dilation"),
    ],
)  # fmt: skip
def test_what_eager_cannot_run_is_refused_by_name(changes: dict[str, object], message: str) -> None:
    shape = LayerShape(**{"op": "conv", "batch": 1, "in_channels": 8, "out_channels": 8, "in_hw": (4, 4), **changes})
    with pytest.raises(InvalidShape, match=message):
        build_block(shape, BANK)


def test_building_reads_and_changes_no_global_random_state() -> None:
    torch.manual_seed(1)
    expected = torch.rand(4)
    torch.manual_seed(1)
    one = build_block(LayerShape(op="linear", batch=1, in_channels=8, out_channels=8), RandomBank("cpu"))
    assert torch.equal(torch.rand(4), expected)
    two = build_block(LayerShape(op="linear", batch=1, in_channels=8, out_channels=8), RandomBank("cpu"))
    assert torch.equal(one(), two())
