"""`steps --explain`, `--html` and `calibrate`: causes on screen, in JSON and on a page; a fit from a CSV, and bad input."""

from __future__ import annotations

import json

import pytest

from tailprune.core.shapes import LayerShape
from tailprune.waves import WaveModel, calibration_shapes, load_device, wave_model


@pytest.fixture
def timings(tmp_path):
    path = tmp_path / "gemm.csv"
    model = WaveModel(load_device("a100"))
    shapes = [shape for shape in calibration_shapes("bfloat16") if shape.op == "linear"]
    rows = [f"{s.batch},{s.out_channels},{s.in_channels},{model.latency_us(s) + 20}" for s in shapes]
    path.write_text("\n".join(["m,n,k,latency_us", *rows]) + "\n")
    return path


def test_causes_stand_on_screen_in_json_and_on_the_page(cli, tiny, tmp_path):
    net = ("-m", tiny, "-d", "a100", "--input-shape", "3,64,64", "-b", 64, "--dtype", "float16")
    ran = cli("steps", *net, "--explain", "--html", tmp_path / "s.html", "--json")
    groups = json.loads(ran.out)["groups"].values()
    assert {cause["cause"] for group in groups for cause in group["causes"]} - {"unexplained"}
    page = (tmp_path / "s.html").read_text()
    assert "Where latency jumps" in page
    assert "http" not in page.replace("http://www.w3.org", "")
    assert "alignment:" in cli("steps", *net, "--explain").out


def test_calibrating_from_a_csv_and_using_it(cli, tiny, timings, tmp_path):
    out = tmp_path / "a100.json"
    ran = cli("calibrate", "-d", "a100", "--csv", timings, "--dtype", "bfloat16", "-o", out)
    assert "bfloat16" in ran.out
    model = wave_model(out)
    assert model.device.name == "A100 80GB SXM"
    layer = LayerShape(op="linear", batch=8, in_channels=64, out_channels=64, dtype="bfloat16")
    assert model.latency_us(layer) > WaveModel(load_device("a100")).latency_us(layer) + 12
    assert "calibrated on 16 timings, gemm.csv" in model.efficiency("bfloat16").origin
    ran = cli("steps", "-m", tiny, "-d", out, "--input-shape", "3,16,16", "-b", 8, "--dtype", "bfloat16", "--json")
    assert "A100" in json.loads(ran.out)["latency_origin"]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("m,n,k,latency_ms\n1,2,3,4\n", "lacks the column latency_us"),
        ("m,n,k,latency_us\n1,2,x,4\n", "line 2 is no row"),
        ("m,n,k,latency_us\n1,0,3,4\n", "line 2: A layer's out_channels must be a positive integer"),
        ("m,n,k,latency_us\n1,2,3,4\n", "at least 8 different shapes, got 1"),
        ("", "it has none"),
    ],
)
def test_a_bad_csv_is_one_sentence(cli, tmp_path, content, sentence):
    path = tmp_path / "bad.csv"
    path.write_text(content)
    ran = cli("calibrate", "-d", "a100", "--csv", path, "-o", tmp_path / "c.json")
    assert ran.code == 1
    assert sentence in ran.err.replace("\n", " ")
    assert not (tmp_path / "c.json").exists()


def test_a_dtype_that_the_card_lacks_is_refused(cli, timings, tmp_path):
    ran = cli("calibrate", "-d", "v100", "--csv", timings, "--dtype", "bfloat16", "-o", tmp_path / "c.json")
    assert ran.code == 1
    assert "no stated peak for bfloat16" in ran.err.replace("\n", " ")


@pytest.mark.parametrize("text", ["{}", "not json", '{"format": "tailprune-calibration", "version": 1}'])
def test_a_damaged_calibration_is_refused(cli, tiny, tmp_path, text):
    path = tmp_path / "c.json"
    path.write_text(text)
    ran = cli("steps", "-m", tiny, "-d", path, "--input-shape", "3,16,16", "-b", 8)
    assert ran.code == 1
    assert "error:" in ran.err


def test_what_cannot_be_calibrated_is_said_before_anything_is_timed(cli, tmp_path):
    ran = cli("calibrate", "-d", "cpu", "-o", tmp_path / "c.json")
    assert ran.code == 1
    assert "Unknown device" in ran.err
    assert "is not at hand" in cli("calibrate", "-d", "h200", "-o", tmp_path / "c.json").err
    assert "a .json file" in cli("calibrate", "-d", "h200", "-o", tmp_path / "c.txt").err
