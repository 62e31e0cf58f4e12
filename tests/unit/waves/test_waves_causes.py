from __future__ import annotations

import doctest
import importlib

import pytest

from tailprune.core.errors import FormatError
from tailprune.core.graph import ChannelGroup, Layer, ModelGraph, WidthExpr
from tailprune.core.shapes import LayerShape
from tailprune.waves import WaveModel, cause_lines, edge_causes, load_device, read_timings, save_calibration, wave_model

A100 = WaveModel(load_device("a100"))


@pytest.mark.parametrize(
    "module", ["calibrate", "explain", "hybrid", "stored", "model", "devices", "quantize", "simulate"]
)
def test_docstring_examples_run(module):
    assert not doctest.testmod(importlib.import_module(f"tailprune.waves.{module}")).failed


def graph() -> ModelGraph:
    """A large linear layer writes the group, a small one reads it."""

    def layer(name: str, ins: WidthExpr, outs: WidthExpr, batch: int) -> Layer:
        shape = LayerShape(
            op="linear", batch=batch, in_channels=ins.at({"g": 512}), out_channels=outs.at({"g": 512}), dtype="float16"
        )
        return Layer(name=name, shape=shape, in_expr=ins, out_expr=outs)

    group, fixed = WidthExpr(terms=(("g", 1),)), WidthExpr(constant=1024)
    layers = (layer("big", fixed, group, 8192), layer("small", group, fixed, 8))
    groups = (ChannelGroup(id="g", width=512, producers=("big",), consumers=("small",)),)
    return ModelGraph(model="pair", layers=layers, groups=groups, input_shape=(8192, 1024))


def test_the_layer_that_jumps_most_gives_the_cause():
    causes = edge_causes(A100, graph(), "g", [(256, 264), (511, 512)], A100)
    assert [cause.layer for cause in causes] == ["big", "big"]
    assert causes[1].explanation.cause == "alignment"
    assert causes[0].above_us > causes[0].below_us
    assert str(causes[0]).startswith("behind 256: +")


def test_edges_of_alignment_share_a_line():
    causes = edge_causes(A100, graph(), "g", [(width, width + 1) for width in range(488, 500)], A100)
    assert all(cause.explanation.cause == "alignment" for cause in causes)
    assert len(lines := cause_lines(causes)) == 1
    assert "12 edges behind widths 488 to 499" in lines[0]
    assert len(cause_lines(causes[:2])) == 2


def test_a_calibration_survives_the_disk(tmp_path):
    found = {"float16": A100.efficiency("float16")}
    save_calibration(tmp_path / "c.json", "a100", found, source="a test")
    loaded = wave_model(tmp_path / "c.json")
    assert loaded.device == A100.device
    assert loaded.efficiency("float16") == found["float16"]
    (tmp_path / "c.json").write_text((tmp_path / "c.json").read_text().replace('"compute"', '"speed"'))
    with pytest.raises(FormatError, match="damaged calibration"):
        wave_model(tmp_path / "c.json")


def test_a_csv_names_its_dtype_or_takes_the_given_one(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("m,n,k,latency_us,dtype\n8,16,32,5.5,float32\n8,16,32,4.5,\n")
    (one, us), (two, _) = read_timings(path, dtype="bfloat16")
    assert (one.batch, one.out_channels, one.in_channels, us) == (8, 16, 32, 5.5)
    assert (one.dtype, two.dtype) == ("float32", "bfloat16")
    with pytest.raises(FormatError, match="Cannot read"):
        read_timings(tmp_path / "none.csv", dtype="float32")
