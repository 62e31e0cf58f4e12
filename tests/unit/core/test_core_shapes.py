import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tailprune.core.errors import InvalidShape
from tailprune.core.shapes import LayerShape, ceil_div


def conv(**changes):
    values = dict(op="conv", batch=2, in_channels=8, out_channels=12, in_hw=(9, 7), kernel_hw=(3, 3), padding_hw=(1, 1))
    return LayerShape(**{**values, **changes})


geometry = st.fixed_dictionaries(
    {
        "batch": st.integers(1, 3),
        "in_hw": st.tuples(st.integers(5, 12), st.integers(5, 12)),
        "kernel_hw": st.tuples(st.integers(1, 3), st.integers(1, 3)),
        "stride_hw": st.tuples(st.integers(1, 3), st.integers(1, 3)),
        "padding_hw": st.tuples(st.integers(0, 2), st.integers(0, 2)),
        "dilation_hw": st.tuples(st.integers(1, 2), st.integers(1, 2)),
        "conv_groups": st.sampled_from([1, 2, 4]),
    }
)


@given(geometry, st.integers(1, 3), st.integers(1, 3))
def test_geometry_agrees_with_torch(values, ins, outs):
    groups = values["conv_groups"]
    shape = conv(in_channels=groups * ins, out_channels=groups * outs, **values)
    x = torch.zeros(shape.batch, shape.in_channels, *shape.in_hw)
    layer = torch.nn.Conv2d(
        shape.in_channels,
        shape.out_channels,
        shape.kernel_hw,
        shape.stride_hw,
        shape.padding_hw,
        shape.dilation_hw,
        groups,
    )
    y = layer(x)
    assert tuple(y.shape[2:]) == shape.out_hw
    assert shape.num_parameters == layer.weight.numel()
    assert shape.gemm.m == shape.batch * y.shape[2] * y.shape[3]
    assert shape.macs == y.numel() * layer.weight[0].numel()


def test_equal_shapes_are_one_key():
    assert len({conv(), conv(), conv(out_channels=13)}) == 2


def test_a_depthwise_layer_stays_depthwise():
    depthwise = conv(in_channels=8, out_channels=8, conv_groups=8)
    narrower = depthwise.with_channels(in_channels=5, out_channels=5)
    assert depthwise.depthwise
    assert narrower.depthwise
    assert narrower.conv_groups == 5


def test_a_grouped_layer_keeps_its_groups():
    assert conv(conv_groups=4).with_channels(out_channels=8).conv_groups == 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"op": "conv3d"}, "Unknown op 'conv3d'; allowed: conv, linear"),
        ({"dtype": "float8"}, "Unknown dtype 'float8'"),
        ({"out_channels": 0}, "out_channels must be a positive integer, got 0"),
        ({"in_channels": 8.0}, "in_channels must be a positive integer, got 8.0"),
        ({"conv_groups": 3}, "cannot have 3 conv groups"),
        ({"kernel_hw": (11, 1), "padding_hw": (0, 0)}, "does not fit into an input"),
        ({"epilogue": ("relu9",)}, "Unknown epilogue 'relu9'"),
        ({"op": "max_pool"}, "keeps its channels, got 8 in and 12 out"),
    ],
)
def test_impossible_shapes_are_refused_in_one_sentence(changes, message):
    with pytest.raises(InvalidShape, match=message):
        conv(**changes)


@given(st.integers(1, 10**9), st.integers(1, 10**6))
def test_ceil_div_is_the_smallest_cover(a, b):
    blocks = ceil_div(a, b)
    assert (blocks - 1) * b < a <= blocks * b
