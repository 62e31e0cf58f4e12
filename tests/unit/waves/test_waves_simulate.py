from __future__ import annotations

import math
import statistics

import pytest

from tailprune.core.errors import InvalidShape, MissingLatency
from tailprune.core.protocols import LayerTimer
from tailprune.core.shapes import LayerShape
from tailprune.waves import SimulatedTimer, WaveModel, load_device

H200 = load_device("h200")
SHAPES = [
    LayerShape(op="linear", batch=256, in_channels=512, out_channels=n, dtype="float16") for n in range(8, 808, 8)
]


class Constant:
    origin = "a constant"

    def latency_us(self, shape: LayerShape) -> float:
        if shape.out_channels == 13:
            raise MissingLatency("unlucky", (shape,))
        return 100.0

    def kind(self, shape: LayerShape) -> str:
        return "modelled"


def test_it_is_a_layer_timer_that_says_simulated():
    timer = SimulatedTimer(H200.with_sms(60, partition="60 SMs"))
    assert isinstance(timer, LayerTimer)
    environment = timer.environment
    assert (environment.device, environment.num_sms, environment.partition, environment.runtime) == (
        "H200 SXM",
        60,
        "60 SMs",
        "simulated",
    )


def test_the_same_seed_gives_the_same_times_in_any_order():
    forwards = {s.shape: s.times_us for s in SimulatedTimer(H200, seed=3).time_many(SHAPES)}
    backwards = {s.shape: s.times_us for s in SimulatedTimer(H200, seed=3).time_many(SHAPES[::-1])}
    other = {s.shape: s.times_us for s in SimulatedTimer(H200, seed=4).time_many(SHAPES)}
    assert forwards == backwards
    assert all(forwards[shape] != other[shape] for shape in SHAPES)


def test_a_second_visit_is_a_new_measurement():
    timer = SimulatedTimer(H200)
    assert timer.time(SHAPES[0]).times_us != timer.time(SHAPES[0]).times_us


def test_many_times_each_distinct_shape_once():
    samples = list(SimulatedTimer(H200).time_many([*SHAPES[:3], *SHAPES[:3]]))
    assert [s.shape for s in samples] == SHAPES[:3]


@pytest.mark.parametrize("noise", [0.002, 0.005, 0.05])
def test_noise_has_the_scale_asked_for_and_outliers_are_rare(noise):
    timer = SimulatedTimer(Constant(), noise=noise)
    logs = [
        math.log(t / 100.0) for s in timer.time_many([s for s in SHAPES if s.out_channels != 13]) for t in s.times_us
    ]
    middle = statistics.median(abs(x) for x in logs) * 1.4826
    assert middle == pytest.approx(noise, rel=0.15)
    assert 0 < sum(x > 8 * noise for x in logs) < 0.03 * len(logs)


def test_without_noise_it_repeats_the_source():
    assert set(SimulatedTimer(Constant(), noise=0.0).time(SHAPES[0]).times_us) == {100.0}


def test_the_median_is_near_the_model():
    model = WaveModel(H200)
    for sample in SimulatedTimer(model, noise=0.005).time_many(SHAPES):
        assert sample.median_us == pytest.approx(model.latency_us(sample.shape), rel=0.02)


def test_what_the_source_lacks_stays_missing():
    with pytest.raises(MissingLatency):
        SimulatedTimer(Constant()).time(LayerShape(op="linear", batch=1, in_channels=1, out_channels=13))


@pytest.mark.parametrize("noise", [-0.1, math.nan, math.inf])
def test_bad_noise_is_refused(noise):
    with pytest.raises(InvalidShape, match="fraction of at least 0"):
        SimulatedTimer(H200, noise=noise)
