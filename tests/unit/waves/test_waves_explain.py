from __future__ import annotations

import pytest

from tailprune.core.errors import InvalidShape
from tailprune.core.shapes import LayerShape
from tailprune.waves import KernelGrid, WaveModel, explain_step, load_device

MODEL = WaveModel(load_device("h200"))
LAYER = LayerShape(
    op="conv",
    batch=32,
    in_channels=256,
    out_channels=256,
    in_hw=(14, 14),
    kernel_hw=(3, 3),
    padding_hw=(1, 1),
    dtype="float16",
)


def between(first: int, second: int, layer: LayerShape = LAYER, model: WaveModel = MODEL):
    return explain_step(model, layer.with_channels(out_channels=first), layer.with_channels(out_channels=second))


def test_a_flat_stretch_has_no_explanation():
    step = between(72, 80)
    assert step.cause == "unexplained"
    assert "no step" in step.detail


def test_every_riser_of_a_curve_names_a_cause_that_its_grids_bear_out():
    causes = set()
    for width in range(8, 256, 8):
        step = between(width, width + 8)
        below, above = (MODEL.profile(LAYER.with_channels(out_channels=n)) for n in (width, width + 8))
        causes.add(step.cause)
        if step.cause == "wave":
            assert below.tile == above.tile
            assert below.num_waves != above.num_waves
        elif step.cause == "tile":
            assert (below.tile, below.num_waves) == (above.tile, above.num_waves)
            assert below.num_tiles != above.num_tiles
        elif step.cause == "kernel switch":
            assert (below.tile, below.split_k) != (above.tile, above.split_k)
        if step.cause in ("wave", "tile", "kernel switch"):
            assert f"{below.num_tiles} tiles of" in step.detail
            assert f"{above.num_tiles} tiles of" in step.detail
    assert causes & {"wave", "tile", "kernel switch"}


def test_leaving_a_multiple_of_eight_is_alignment():
    layer = LayerShape(op="linear", batch=4096, in_channels=2048, out_channels=2048, dtype="float16")
    step = between(2048, 2047, layer)
    assert step.cause == "alignment"
    assert step.ratio > 1.1
    assert "1.00x before, 1.30x after" in step.detail


def test_more_bytes_of_a_pool_are_memory():
    pool = LayerShape(
        op="max_pool", batch=64, in_channels=64, out_channels=64, in_hw=(112, 112), kernel_hw=(2, 2), stride_hw=(2, 2)
    )
    step = explain_step(MODEL, pool, pool.with_channels(in_channels=128, out_channels=128))
    assert step.cause == "memory"


def test_the_sentence_shows_both_modelled_latencies():
    step = between(128, 136)
    assert str(step).startswith(step.cause)
    assert "modelled" in str(step)
    assert step.ratio == pytest.approx(step.above_us / step.below_us)


@pytest.mark.parametrize(
    ("blocks", "names", "cause"),
    [
        ((320, 320), ("volta_sgemm_128x64_tn", "volta_sgemm_128x128_tn"), "kernel switch"),
        ((160, 161), ("volta_sgemm_128x128_tn",) * 2, "wave"),
        ((150, 155), ("volta_sgemm_128x128_tn",) * 2, "tile"),
        ((80, 81), ("a_kernel_of_unknown_tile",) * 2, "wave"),
    ],
)
def test_what_a_profiler_saw_decides(blocks, names, cause):
    v100 = WaveModel(load_device("v100"))
    layer = LayerShape(op="linear", batch=1024, in_channels=512, out_channels=640)
    grids = tuple(KernelGrid(kernel=name, num_blocks=count) for name, count in zip(names, blocks, strict=True))
    step = explain_step(v100, layer, layer.with_channels(out_channels=648), grids=grids)
    assert step.cause == cause
    assert "profiled" in step.detail
    assert names[0] in step.detail


def test_a_measured_step_that_the_model_does_not_see_is_unexplained():
    layer = LayerShape(op="linear", batch=4096, in_channels=2048, out_channels=2048, dtype="float16")
    below = layer.with_channels(out_channels=2047)
    assert explain_step(MODEL, below, layer, measured_us=(13.0, 10.0)).cause == "alignment"
    for measured in ((10.0, 13.0), (30.0, 10.0), (10.0, 10.0)):
        step = explain_step(MODEL, below, layer, measured_us=measured)
        assert (step.cause, "measured were" in step.detail) == ("unexplained", True)


@pytest.mark.parametrize("bad", [{"kernel": "", "num_blocks": 1}, {"kernel": "k", "num_blocks": 0}])
def test_a_grid_of_nothing_is_refused(bad):
    with pytest.raises(InvalidShape, match="profiled grid"):
        KernelGrid(**bad)


def test_one_more_slice_of_k_is_a_tile_step():
    layer = LAYER.with_channels(in_channels=8, out_channels=256)
    step = explain_step(MODEL, layer, layer.with_channels(in_channels=16))
    assert MODEL.profile(layer).num_tiles == MODEL.profile(layer.with_channels(in_channels=16)).num_tiles
    assert (step.cause, "slices of k" in step.detail) == ("tile", True)
