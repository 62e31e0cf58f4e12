from __future__ import annotations

import dataclasses
import math
import random

import pytest

from tailprune.core.errors import InvalidShape
from tailprune.core.shapes import LayerShape
from tailprune.waves import AnchoredModel, WaveModel, calibrate, calibration_shapes, load_device

A100 = load_device("a100")
SHAPES = calibration_shapes("float16")
TRUE = dataclasses.replace(
    WaveModel(A100).efficiency("float16"), compute=0.6, bandwidth=0.9, overhead_us=11.0, slice_us=0.12
)


def timings(noise: float = 0.01) -> list[tuple[LayerShape, float]]:
    model, draw = WaveModel(A100, efficiency=TRUE), random.Random(0)
    return [(shape, model.latency_us(shape) * math.exp(draw.gauss(0, noise))) for shape in SHAPES]


def test_24_timings_find_the_shares_that_made_them():
    found = calibrate(A100, timings())["float16"]
    assert found.compute == pytest.approx(0.6, rel=0.1)
    assert found.overhead_us == pytest.approx(11.0, rel=0.1)
    assert "calibrated on 24 timings" in found.origin
    layer = LayerShape(op="linear", batch=3000, in_channels=700, out_channels=900, dtype="float16")
    truth = WaveModel(A100, efficiency=TRUE).latency_us(layer)
    before, after = (
        abs(math.log(m.latency_us(layer) / truth)) for m in (WaveModel(A100), WaveModel(A100, efficiency=found))
    )
    assert after < 0.06
    assert after < before / 3


def test_one_bad_timing_moves_little():
    bad = [(shape, us * (4 if index == 5 else 1)) for index, (shape, us) in enumerate(timings())]
    assert calibrate(A100, bad)["float16"].compute == pytest.approx(0.6, rel=0.15)


def test_calibration_holds_for_its_dtype_only_and_narrows_the_spread():
    model = WaveModel(A100, efficiency=calibrate(A100, timings()))
    half, single = (
        LayerShape(op="linear", batch=64, in_channels=64, out_channels=64, dtype=d) for d in ("float16", "float32")
    )
    assert model.spread(half) < model.spread(single)
    assert model.latency_us(single) == WaveModel(A100).latency_us(single)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda t: t[:5], r"at least 8 different shapes, got 5"),
        (lambda t: [], r"got none"),
        (lambda t: [*t, (t[0][0], t[0][1] * 3)], r"timings of linear 1024->1024 .* contradict each other"),
        (lambda t: [(s, us * (30 if i == 5 else 1)) for i, (s, us) in enumerate(t)], r"timing of linear 2048->2048 .*contradicts"),
        (lambda t: [(s, us / 1000) for s, us in t], r"unit \(microseconds\)"),
        (lambda t: [*t[:-1], (t[-1][0], math.nan)], r"positive and finite, got nan"),
    ],
)  # fmt: skip
def test_bad_timings_are_refused_by_name(change, sentence):
    with pytest.raises(InvalidShape, match=sentence):
        calibrate(A100, change(timings()))


def test_an_architecture_without_recordings_says_that_its_edges_need_measuring():
    for name, doubt in (("h200", True), ("b200", True), ("t4", True), ("a100", False), ("rtx pro 6000", False)):
        model = WaveModel(load_device(name))
        assert ("measure its edges" in model.origin) is doubt
    known, borrowed = WaveModel(A100), WaveModel(load_device("h200"))
    assert 1 < known.spread(SHAPES[0]) < borrowed.spread(SHAPES[0])


def test_anchors_are_measured_and_pull_the_model_towards_them():
    layer = LayerShape(op="linear", batch=2048, in_channels=1024, out_channels=1024, dtype="float16")
    truth, model = WaveModel(A100, efficiency=TRUE), WaveModel(A100)
    anchors = [layer.with_channels(out_channels=n) for n in range(8, 1024, 96)]
    source = AnchoredModel(model, [(shape, truth.latency_us(shape)) for shape in anchors])
    widths = [layer.with_channels(out_channels=n) for n in range(16, 1000, 24)]
    misses = [
        sum(abs(math.log(s.latency_us(shape) / truth.latency_us(shape))) for shape in widths) for s in (model, source)
    ]
    assert misses[1] < 0.3 * misses[0]
    assert source.latency_us(anchors[3]) == truth.latency_us(anchors[3])
    assert [source.kind(anchors[3]), source.kind(widths[1])] == ["measured", "modelled"]
    other = LayerShape(op="conv", batch=8, in_channels=64, out_channels=64, in_hw=(28, 28), dtype="float16")
    assert source.latency_us(other) == model.latency_us(other)


def rise(model: WaveModel, layer: LayerShape, width: int) -> float:
    return model.latency_us(layer.with_channels(out_channels=width + 8)) / model.latency_us(
        layer.with_channels(out_channels=width)
    )


def test_a_hybrid_keeps_the_models_edges_between_anchors():
    layer = LayerShape(op="linear", batch=4096, in_channels=1024, out_channels=1024, dtype="float16")
    model = WaveModel(A100)
    ends = [layer.with_channels(out_channels=n) for n in (128, 512)]
    source = AnchoredModel(
        model, [(ends[0], 1.1 * model.latency_us(ends[0])), (ends[1], 0.9 * model.latency_us(ends[1]))]
    )
    edge = max(range(128, 505, 8), key=lambda n: rise(model, layer, n))
    below, above = (layer.with_channels(out_channels=n) for n in (edge, edge + 8))
    jump = math.log(model.latency_us(above) / model.latency_us(below))
    assert math.log(source.latency_us(above) / source.latency_us(below)) == pytest.approx(jump, abs=0.05)


def test_a_hybrid_without_anchors_is_refused():
    with pytest.raises(InvalidShape, match="at least one measured shape"):
        AnchoredModel(WaveModel(A100), [])
