"""One contract for whatever times layers: the device that is here, and the simulated one."""

from __future__ import annotations

import math

import pytest

from tailprune.core.protocols import LayerTimer
from tailprune.core.sample import LatencySample
from tailprune.core.shapes import LayerShape
from tailprune.timing import DeviceTimer
from tailprune.waves import SimulatedTimer, load_device

CONV = LayerShape(op="conv", batch=2, in_channels=8, out_channels=8, in_hw=(6, 6), kernel_hw=(3, 3), padding_hw=(1, 1),
                  epilogue=("bias", "add", "relu"))  # fmt: skip
SHAPES = [
    *(CONV.with_channels(out_channels=width) for width in (7, 8, 9)),
    LayerShape(op="conv", batch=2, in_channels=8, out_channels=8, in_hw=(6, 6), kernel_hw=(3, 3), conv_groups=8, epilogue=("bias", "relu6")),
    LayerShape(op="linear", batch=2, in_channels=8, out_channels=5, epilogue=("bias",)),
    LayerShape(op="attention", batch=1, in_channels=8, out_channels=8, in_hw=(5, 1), conv_groups=2, epilogue=("bias",)),
    LayerShape(op="max_pool", batch=2, in_channels=8, out_channels=8, in_hw=(6, 6), kernel_hw=(3, 3), stride_hw=(2, 2), padding_hw=(1, 1)),
    LayerShape(op="avg_pool", batch=2, in_channels=8, out_channels=8, in_hw=(6, 6), kernel_hw=(6, 6)),
    LayerShape(op="elementwise", batch=2, in_channels=8, out_channels=8, in_hw=(6, 6), epilogue=("batch_norm", "relu")),
]  # fmt: skip


def simulated() -> SimulatedTimer:
    return SimulatedTimer(load_device("h200"), seed=3)


def this_cpu() -> DeviceTimer:
    return DeviceTimer("cpu", max_visits=6)


@pytest.fixture(params=[simulated, this_cpu], ids=["simulated", "cpu"])
def timer(request: pytest.FixtureRequest) -> LayerTimer:
    return request.param()


def test_is_a_layer_timer(timer: LayerTimer) -> None:
    assert isinstance(timer, LayerTimer)


def test_one_sample_of_the_requested_shape(timer: LayerTimer) -> None:
    for shape in SHAPES:
        assert timer.time(shape).shape == shape


def test_each_distinct_shape_exactly_once(timer: LayerTimer) -> None:
    samples = list(timer.time_many([*SHAPES, SHAPES[0], *SHAPES[::-1]]))
    assert len(samples) == len(SHAPES)
    assert {sample.shape for sample in samples} == set(SHAPES)


def test_raw_times_are_kept_positive_and_finite(timer: LayerTimer) -> None:
    for sample in timer.time_many(SHAPES):
        assert isinstance(sample, LatencySample)
        assert sample.usable, sample.note
        assert len(sample.times_us) >= 3  # more than half of six visits, or all of them
        assert all(math.isfinite(time) and time > 0 for time in sample.times_us)


def test_nothing_asked_is_nothing_answered(timer: LayerTimer) -> None:
    assert list(timer.time_many([])) == []


def test_yields_lazily_and_may_be_abandoned(timer: LayerTimer) -> None:
    first = next(iter(timer.time_many(SHAPES)))
    assert first.shape in SHAPES
    assert timer.time(SHAPES[1]).shape == SHAPES[1]


def test_environment_is_constant_and_complete(timer: LayerTimer) -> None:
    before = timer.environment
    timer.time(CONV)
    assert timer.environment == before
    assert before.device
    assert before.runtime
    assert before.num_sms >= 1
    assert before.threads >= 1


def test_environments_of_equal_timers_are_equal() -> None:
    for make in (simulated, this_cpu):
        assert make().environment == make().environment
    assert simulated().environment.differences(this_cpu().environment)[0], (
        "a simulated table must never pass for a measured one"
    )


def test_the_simulated_timer_is_deterministic() -> None:
    assert [s.times_us for s in simulated().time_many(SHAPES)] == [s.times_us for s in simulated().time_many(SHAPES)]
