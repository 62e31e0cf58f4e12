from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tailprune.core.errors import InvalidShape
from tailprune.core.protocols import LatencySource
from tailprune.core.shapes import EPILOGUE_OPS, LayerShape
from tailprune.waves import Efficiency, WaveModel, default_efficiency, load_device, tile_menu
from tailprune.waves.product import ProductCost

H200 = load_device("h200")
MODELS = {
    name: WaveModel(load_device(name)) for name in ("h200", "a100", "rtx3090", "l40s", "v100", "b200", "jetson nano")
}


def conv(**changes) -> LayerShape:
    base = {"op": "conv", "batch": 32, "in_channels": 256, "out_channels": 256, "in_hw": (14, 14), "kernel_hw": (3, 3),
            "padding_hw": (1, 1), "dtype": "float16", "epilogue": ("bias", "relu")}  # fmt: skip
    return LayerShape(**(base | changes))


@st.composite
def shapes(draw) -> LayerShape:
    op = draw(
        st.sampled_from(("conv", "depthwise", "grouped", "linear", "attention", "max_pool", "avg_pool", "elementwise"))
    )
    ins, outs = draw(st.integers(1, 600)), draw(st.integers(1, 600))
    common = {
        "batch": draw(st.sampled_from((1, 3, 32, 256))),
        "dtype": draw(st.sampled_from(("float32", "float16"))),
        "memory_format": draw(st.sampled_from(("channels_last", "contiguous"))),
        "epilogue": tuple(draw(st.lists(st.sampled_from(EPILOGUE_OPS), max_size=3))),
    }
    side = draw(st.integers(1, 60))
    if op in ("linear", "attention"):
        return LayerShape(
            op=op,
            in_channels=ins,
            out_channels=outs,
            in_hw=(side, 1),
            conv_groups=draw(st.integers(1, 8)) if op == "attention" else 1,
            **common,
        )
    spatial = {
        "in_hw": (side, side),
        "kernel_hw": draw(st.sampled_from(((1, 1), (3, 3)))),
        "padding_hw": (1, 1),
        "stride_hw": draw(st.sampled_from(((1, 1), (2, 2)))),
    }
    if op == "elementwise":
        return LayerShape(op=op, in_channels=ins, out_channels=ins, in_hw=(side, side), **common)
    if op in ("max_pool", "avg_pool"):
        return LayerShape(op=op, in_channels=ins, out_channels=ins, **spatial, **common)
    groups = {"conv": 1, "depthwise": ins, "grouped": 4}[op]
    outs = ins if op == "depthwise" else outs
    if op == "grouped":
        ins, outs = 4 * ins, 4 * outs
    return LayerShape(op="conv", in_channels=ins, out_channels=outs, conv_groups=groups, **spatial, **common)


@given(shape=shapes(), name=st.sampled_from(sorted(MODELS)), fused=st.booleans())
@settings(max_examples=300, deadline=None)
def test_latency_is_positive_and_finite_and_has_a_profile(shape, name, fused):
    model = MODELS[name] if fused else WaveModel(load_device(name), fused=False)
    latency = model.latency_us(shape)
    assert math.isfinite(latency)
    assert latency > 0
    profile = model.profile(shape)
    assert 0 < profile.tail_fill <= 1
    assert profile.bound in ("compute", "memory", "overhead")
    assert model.latency_us(shape) == latency


@given(shape=shapes(), sms=st.integers(1, 131), more=st.integers(1, 131))
@settings(max_examples=150, deadline=None)
def test_fewer_sms_are_never_faster(shape, sms, more):
    few, many = (WaveModel(H200.with_sms(n, partition=f"{n} SMs")) for n in (sms, min(132, sms + more)))
    assert few.latency_us(shape) >= many.latency_us(shape) * (1 - 1e-9)


@given(
    m=st.integers(1, 20000),
    k=st.integers(1, 4000),
    tile=st.sampled_from(tile_menu(H200, "float16")),
    width=st.integers(1, 3000),
    more=st.integers(0, 3000),
)
def test_more_waves_of_one_tile_are_never_cheaper(m, k, tile, width, more):
    product = ProductCost(H200, "float16", default_efficiency(H200, tensor_cores=True), (tile,))
    below, above = (product.busy_us(m, n, k, 1, 1000, split_k=False) for n in (width, width + more))
    assert above >= below * (1 - 1e-12)


@given(shape=shapes(), first=st.integers(1, 40))
@settings(max_examples=100, deadline=None)
def test_a_curve_equals_its_points(shape, first):
    model = MODELS["h200"]
    step = shape.conv_groups if shape.op == "conv" and not shape.depthwise else 1
    widths = np.arange(first, first + 8) * step
    same = shape.depthwise or shape.op in ("max_pool", "avg_pool", "elementwise")
    curve = model.curve_us(shape, out_channels=widths)
    points = [
        model.latency_us(shape.with_channels(in_channels=int(w) if same else None, out_channels=int(w))) for w in widths
    ]
    assert curve == pytest.approx(points, rel=1e-9)


def test_a_row_and_a_column_give_the_whole_table():
    model = MODELS["h200"]
    table = model.curve_us(conv(), in_channels=np.array([[64], [128]]), out_channels=np.arange(8, 257, 8))
    assert table.shape == (2, 32)
    assert table[1, 3] == pytest.approx(model.latency_us(conv(in_channels=128, out_channels=32)))


def test_resnet_layers_on_an_h200_are_staircases():
    """Few risers hold most of the climb, and plateaus lie between them."""
    curve = MODELS["h200"].curve_us(conv(), out_channels=np.arange(8, 257, 8))
    rise = np.diff(curve)
    assert np.sort(rise)[-5:].sum() > 0.8 * (curve[-1] - curve[0])
    assert (np.abs(rise) < 0.01 * curve[:-1]).sum() >= 16


def test_a_partition_moves_the_waves():
    part = WaveModel(H200.with_sms(66, partition="half"))
    assert part.profile(conv()).wave_size < MODELS["h200"].profile(conv()).wave_size
    assert "66 SMs" in part.origin
    assert "half" in part.origin


def test_odd_channels_cost_tensor_cores_and_not_cuda_cores():
    big = {"in_channels": 2048, "batch": 256, "dtype": "float16"}
    odd, even = (LayerShape(op="linear", out_channels=n, in_hw=(16, 1), **big) for n in (2047, 2048))
    assert MODELS["a100"].latency_us(odd) > 1.2 * MODELS["a100"].latency_us(even)
    assert MODELS["a100"].alignment_slowdown(even, 2048, 2048) == 1
    assert MODELS["v100"].alignment_slowdown(LayerShape(op="linear", batch=1, in_channels=7, out_channels=7), 7, 7) == 1


def test_in_channels_are_padded_to_eight_halves():
    model = MODELS["a100"]
    three, eight = (model.latency_us(conv(in_channels=n, in_hw=(112, 112))) for n in (3, 8))
    assert three == pytest.approx(eight, rel=1e-9)


def test_an_eager_epilogue_costs_passes_of_its_own():
    fused, eager = MODELS["h200"], WaveModel(H200, fused=False)
    assert eager.latency_us(conv()) > fused.latency_us(conv()) + 2
    assert eager.latency_us(conv(epilogue=())) == fused.latency_us(conv(epilogue=()))


def test_splitting_k_helps_long_thin_products_only():
    thin = LayerShape(op="linear", batch=16, in_channels=16384, out_channels=64, dtype="float16")
    assert MODELS["h200"].profile(thin).split_k > 1
    assert MODELS["h200"].profile(conv()).split_k == 1


def test_the_dtype_a_card_lacks_is_refused_in_one_sentence():
    with pytest.raises(InvalidShape, match=r"V100 SXM2 has no stated peak for bfloat16"):
        MODELS["v100"].latency_us(conv(dtype="bfloat16"))
    with pytest.raises(InvalidShape, match=r"no stated peak for int8"):
        MODELS["v100"].profile(conv(dtype="int8"))
    assert MODELS["a100"].latency_us(conv(dtype="int8")) < MODELS["a100"].latency_us(conv(dtype="float32"))


def test_it_is_a_latency_source_and_says_modelled():
    assert isinstance(MODELS["h200"], LatencySource)
    assert MODELS["h200"].kind(conv()) == "modelled"
    assert "estimated" in MODELS["h200"].origin


def test_a_curve_of_one_point_is_a_point():
    depthwise = conv(in_channels=32, out_channels=32, conv_groups=32)
    for layer in (conv(), depthwise):
        assert float(MODELS["h200"].curve_us(layer)) == pytest.approx(MODELS["h200"].latency_us(layer))
    assert float(MODELS["h200"].curve_us(depthwise, out_channels=1)) == pytest.approx(
        MODELS["h200"].latency_us(depthwise.with_channels(in_channels=1, out_channels=1))
    )


@pytest.mark.parametrize("counts", [[0, 1], [-3]])
def test_a_curve_refuses_counts_below_one(counts):
    with pytest.raises(InvalidShape, match="start the range at 1"):
        MODELS["h200"].curve_us(conv(), out_channels=counts)


def test_a_curve_refuses_counts_off_the_conv_groups():
    with pytest.raises(InvalidShape, match="multiples of the 4 conv groups"):
        MODELS["h200"].curve_us(conv(conv_groups=4), out_channels=[4, 6])


@pytest.mark.parametrize("field", ["compute", "bandwidth", "overhead_us"])
def test_an_efficiency_must_be_positive(field):
    with pytest.raises(InvalidShape, match=field):
        Efficiency(**({"compute": 0.8, "bandwidth": 0.8, "overhead_us": 3.0} | {field: 0.0}))
