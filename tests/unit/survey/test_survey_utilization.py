"""Is utilization what it says, does the time's split add up, and is nothing invented where nobody states a peak?"""

from __future__ import annotations

import dataclasses
import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from survey_worlds import FormulaSource, chain, steps_of

from tailprune.core.errors import InvalidShape, MissingLatency
from tailprune.core.graph import ModelGraph
from tailprune.core.protocols import FirstOf
from tailprune.survey import diagnose, survey_utilization
from tailprune.survey.losses import occupancy, sms_busy, split_time
from tailprune.waves import WaveModel, WaveProfile, load_device, tile_menu

H200 = load_device("h200")
HALF = {"batch": 32, "dtype": "float16"}


def peak_pace(device, dtype="float16", *, slower=2.0):
    """A source that runs arithmetic at 1/`slower` of the stated peak, exactly."""
    return FormulaSource(lambda shape: slower * 2e6 * shape.macs / device.peak(dtype))


def test_utilization_is_flop_over_latency_over_peak():
    found = survey_utilization(chain(64, **HALF), peak_pace(H200), device=H200)
    assert found.utilization == pytest.approx(0.5)
    assert all(layer.utilization == pytest.approx(0.5) for layer in found.layers)
    assert found.flop == 2 * chain(64, **HALF).macs_at()
    assert found.images_per_s == pytest.approx(32 / found.latency_us * 1e6)
    assert (found.kind, found.device) == ("measured", "H200 SXM")


def test_calls_count_as_often_as_they_run():
    graph = chain(64, **HALF)
    twice = dataclasses.replace(graph, layers=tuple(dataclasses.replace(la, calls=2) for la in graph.layers))
    one, two = (survey_utilization(g, WaveModel(H200), place=False) for g in (graph, twice))
    assert two.latency_us == pytest.approx(2 * one.latency_us)
    assert two.split.total_us == pytest.approx(2 * one.split.total_us)
    assert two.utilization == pytest.approx(one.utilization)
    assert two.intensity == pytest.approx(one.intensity)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(1, 300), min_size=1, max_size=4),
    st.sampled_from(["h200", "a100", "t4", "l40s", "v100"]),
    st.sampled_from([1, 8, 64]),
)
def test_by_the_model_utilization_lies_in_0_to_1_and_the_split_adds_up(widths, name, batch):
    model = WaveModel(load_device(name))
    found = survey_utilization(chain(*widths, batch=batch, dtype="float16"), model, place=False)
    assert 0 < found.utilization <= 1
    for layer in found.layers:
        assert 0 < layer.utilization <= 1
        parts = dataclasses.astuple(layer.split)
        assert min(parts) >= 0
        assert math.fsum(parts) == pytest.approx(layer.latency_us)
        assert layer.split.useful_us == pytest.approx(layer.utilization * layer.latency_us)
        assert 0 < layer.grid.tail_fill <= 1 and 0 < layer.grid.tile_efficiency <= 1
        assert layer.occupancy is None or 0 < layer.occupancy <= 1
    assert found.split.total_us == pytest.approx(found.latency_us)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(1, 300), min_size=1, max_size=4),
    st.floats(1e-3, 1e4),
    st.sampled_from(["float16", "float32"]),
    st.integers(0, 99),
)
def test_whatever_is_measured_utilization_lies_in_0_to_1(widths, slower, dtype, seed):
    """Latencies far below and far above arithmetic at the peak, another factor for every layer."""
    paces = [slower * (1 + (seed + i) % 7) for i in range(len(widths) + 1)]
    source = FormulaSource(lambda s: paces[s.in_hw[0] - 14] * 2e6 * s.macs / H200.peak(dtype))
    found = survey_utilization(chain(*widths, dtype=dtype), source, device=H200, place=False)
    assert 0 < found.utilization <= 1
    for layer, pace in zip(found.layers, paces, strict=True):
        assert 0 < layer.utilization <= 1
        assert layer.utilization == pytest.approx(min(1.0, 1 / pace))
        assert layer.beyond_peak == (pace < 1 - 1e-6) or pace == pytest.approx(1)
        assert layer.split.useful_us == pytest.approx(layer.useful_us)
    assert found.utilization == pytest.approx(found.split.useful_us / found.latency_us)


def test_more_than_the_stated_peak_is_told_and_not_hidden():
    found = survey_utilization(chain(64, **HALF), peak_pace(H200, slower=0.8), device=H200)
    assert found.utilization == 1 and all(layer.beyond_peak for layer in found.layers)
    assert found.flops_per_s == pytest.approx(1.25 * H200.peak("float16"))
    assert any("exceed the stated peak" in told and "no algorithm explains it" in told for told in found.warnings)
    assert found.split.total_us == pytest.approx(found.latency_us)
    assert found.to_dict()["layers"][0]["beyond_peak"] is True


def test_winograd_is_named_where_it_can_be_and_only_there():
    graph = chain(64, **HALF)
    wide = [dataclasses.replace(la, shape=dataclasses.replace(la.shape, kernel_hw=(3, 3))) for la in graph.layers]
    found = survey_utilization(
        dataclasses.replace(graph, layers=tuple(wide)), peak_pace(H200, slower=0.8), device=H200, place=False
    )
    assert len(found.warnings) == 1 and "as Winograd's algorithm can be" in found.warnings[0]
    exact = survey_utilization(graph, peak_pace(H200, slower=1.0), device=H200, place=False)
    assert exact.utilization == pytest.approx(1) and not exact.warnings


def test_without_a_device_nothing_about_peaks_is_invented():
    found = survey_utilization(chain(64), FormulaSource(steps_of(16)))
    assert found.utilization is None and found.split is None and found.device is None
    assert all(layer.utilization is None and layer.grid is None for layer in found.layers)
    assert found.flops_per_s > 0
    assert "utilization unknown: no device with a stated peak was named" in found.summary()
    assert json.loads(json.dumps(found.to_dict(), allow_nan=False))["utilization"] is None


def test_a_dtype_without_a_stated_peak_is_named():
    found = survey_utilization(chain(64, dtype="bfloat16"), FormulaSource(steps_of(16)), device=load_device("t4"))
    assert found.utilization is None and found.device == "T4"
    assert "T4 has no stated peak for bfloat16; known: float16" in found.summary()
    with pytest.raises(InvalidShape, match="no stated peak for bfloat16"):  # the model cannot price it either
        survey_utilization(chain(64, dtype="bfloat16"), WaveModel(load_device("t4")))


def test_waste_and_headroom_are_the_doctors():
    graph, source = chain(36), FormulaSource(steps_of(16))
    found, judged = survey_utilization(graph, source), diagnose(graph, None, source)
    assert found.wasted_us == pytest.approx(judged.wasted_us) == pytest.approx(10 * 12 / 16)
    first = found.by_wasted[0]
    assert (first.name, first.place.headroom, first.free_headroom) == ("c0", 12, 12)
    assert found.by_wasted[-1].wasted_us == 0


def test_headroom_that_costs_is_not_free():
    source = FormulaSource(lambda shape: 5.0 + 10 * math.ceil(shape.out_channels / 16) + 0.01 * shape.out_channels)
    layer = survey_utilization(chain(36), source).by_wasted[0]
    assert layer.place.headroom > 0 and layer.free_headroom == 0


def test_widths_are_respected_and_checked():
    source = FormulaSource(steps_of(16))
    assert survey_utilization(chain(64), source, widths={"g0": 17}).layers[0].shape.out_channels == 17
    with pytest.raises(InvalidShape, match="no channel group 'nowhere'"):
        survey_utilization(chain(64), source, widths={"nowhere": 3})


def test_a_table_that_lacks_the_network_is_refused_with_the_list_and_one_that_lacks_only_steps_is_not():
    graph = chain(36)
    dense = {shape for _, shape in graph.shapes_at()}
    with pytest.raises(MissingLatency) as caught:
        survey_utilization(graph, FormulaSource(steps_of(16), knows=lambda shape: shape.out_channels == 10))
    assert caught.value.shapes == (graph.layers[0].shape,)
    found = survey_utilization(graph, FormulaSource(steps_of(16), knows=lambda shape: shape in dense))
    assert found.layers[0].place is None and found.layers[0].free_headroom is None
    assert "knows 1 of its" in found.unplaced["g0"]


def test_measured_and_modelled_parts_are_told_apart():
    table = FormulaSource(steps_of(16), knows=lambda shape: shape.in_channels == 3)
    found = survey_utilization(chain(64, **HALF), FirstOf(table, WaveModel(H200)), place=False)
    assert [layer.kind for layer in found.layers] == ["measured", "modelled"]
    assert found.kind == "modelled" and "added up" in found.warnings[0]


def test_nothing_to_survey_is_said():
    with pytest.raises(InvalidShape, match="no layers to survey"):
        survey_utilization(ModelGraph(model="empty", layers=(), groups=(), input_shape=(1, 3)), WaveModel(H200))


def test_sms_wait_for_the_last_round_only():
    def grid(tiles):
        return WaveProfile(num_tiles=tiles, wave_size=200, tile_efficiency=1.0)

    assert sms_busy(grid(100), 100) == 1.0  # half a wave of two blocks an SM: every SM has one
    assert sms_busy(grid(101), 100) == pytest.approx(101 / 200)
    assert sms_busy(grid(50), 100) == 0.5


class Fixed(WaveModel):
    """A model with a given grid and a launch of one microsecond."""

    def __init__(self, device, **grid):
        super().__init__(device)
        self.grid = WaveProfile(**grid)

    def profile(self, shape):
        return self.grid

    def latency_us(self, shape):
        return 1.0


def test_the_split_by_hand():
    shape = chain(512, **HALF).layers[0].shape
    useful = 2e6 * shape.macs / H200.peak("float16")
    moving = 1e6 * shape.num_bytes / H200.dram_bytes_per_s
    grid = {"num_tiles": 3 * 132 // 2, "wave_size": 132, "tile_efficiency": 0.9}  # one and a half rounds
    split = split_time(shape, 100.0, Fixed(H200, bound="compute", **grid))
    arithmetic = 100.0 - 1.0 - (moving - useful)
    assert split.useful_us == pytest.approx(useful) and split.launch_us == 1.0
    assert split.memory_us == pytest.approx(moving - useful)
    assert split.tail_us == pytest.approx(arithmetic / 4)
    assert split.tile_us == pytest.approx(arithmetic * 0.75 * 0.1)
    waiting = split_time(shape, 100.0, Fixed(H200, bound="memory", **grid))
    assert (waiting.tail_us, waiting.tile_us, waiting.rest_us) == (0, 0, 0)
    assert waiting.memory_us == pytest.approx(99.0 - useful)
    short = split_time(shape, useful / 2, Fixed(H200, bound="compute", **grid))  # less than arithmetic at the peak
    assert short.useful_us == pytest.approx(useful / 2) and short.total_us == pytest.approx(useful / 2)


def test_occupancy_is_resident_warps_over_all():
    model, known = WaveModel(H200), tile_menu(H200, "float16")[0]
    tile = WaveProfile(num_tiles=1, wave_size=2 * 132, tile_efficiency=1.0, tile=(known.m, known.n))
    assert occupancy(tile, model, "float16") == pytest.approx(2 * known.threads / 2048)
    assert occupancy(dataclasses.replace(tile, tile=(7, 7)), model, "float16") is None
