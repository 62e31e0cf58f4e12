"""`tailprune survey`: one network and many, resumed, refused in one sentence; and the plots and pages it writes."""

from __future__ import annotations

import csv
import json

import pytest

from tailprune.cli import survey_all as many
from tailprune.core.errors import FormatError, InvalidShape
from tailprune.reports import NetworkUse, plot_networks, plot_time_map, survey_page
from tailprune.survey import survey_utilization
from tailprune.tracing import trace_model
from tailprune.waves import WaveModel, load_device


def rows_of(folder):
    with (folder / "survey.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_one_network(cli, tiny, tmp_path):
    asked = ("survey", "-m", tiny, "--input-shape", "3,32,32", "-d", "a100", "-b", "16", "--dtype", "float16")
    code, said, _ = cli(*asked, "--plot", tmp_path / "time.svg", "--json")
    body = json.loads(said)
    assert code == 0 and 0 < body["utilization"] <= 1
    assert body["latency_kind"] == "modelled" and "wave model of A100" in body["latency_origin"]
    assert sum(body["split_us"].values()) == pytest.approx(body["latency_us"])
    assert {"waves", "tail_fill", "tile_efficiency", "occupancy", "free_headroom", "wasted_us"} <= body["layers"][
        0
    ].keys()
    assert "<svg" in (tmp_path / "time.svg").read_text()
    code, said, _ = cli(*asked)
    assert code == 0 and "of peak" in said and "modelled" in said and "busy" not in said


def test_a_table_is_judged_by_the_device_it_was_measured_on(cli, tiny, tmp_path):
    net = ("-m", tiny, "--input-shape", "3,32,32", "-b", "16", "--dtype", "float16")
    assert cli("measure", *net, "-t", tmp_path / "a.db", "--simulate", "a100", "-q")[0] == 0
    body = json.loads(cli("survey", *net, "-t", tmp_path / "a.db", "--json")[1])
    assert body["device"].startswith("A100") and 0 < body["utilization"] <= 1
    code, _, err = cli("survey", *net, "-t", tmp_path / "a.db", "-d", "h200")
    assert code == 1 and "was measured on" in err and "not of H200" in " ".join(err.split())


@pytest.mark.parametrize(
    ("args", "told"),
    [
        ((), "give either --model or --all"),
        (("--all", "torchvision", "-m", "torchvision:resnet18"), "give either --model or --all"),
        (("--all", "timm"), "not of 'timm'"),
        (("--all", "torchvision", "--batches", "1,two"), "--batches '1,two' is not understood"),
        (("--all", "torchvision", "--batches", "0"), "--batches '0' is not understood"),
        (("--all", "torchvision", "--only", "restnet"), "no classification network 'restnet'"),
        (("-m", "torchvision:resnet18", "--dtype", "bfloat16"), "no stated peak for bfloat16"),
    ],
)
def test_what_cannot_be_surveyed_is_refused_in_one_sentence(cli, tmp_path, args, told):
    code, _, err = cli("survey", "-d", "t4", *args, *(() if "-m" in args else ("-o", tmp_path)))
    assert code == 1 and told in " ".join(err.split())


def test_a_model_without_arithmetic_is_refused(cli, tiny):
    code, _, err = cli("survey", "-m", tiny.replace(":build", ":flat"), "-d", "t4")
    assert code == 1 and "no convolution or linear layer" in err


def test_many_networks_resume_and_say_what_failed(cli, tmp_path, monkeypatch):
    traced = []
    original = many.published
    monkeypatch.setattr(many, "published", lambda name: traced.append(name) or original(name))
    asked = ("survey", "--all", "torchvision", "--only", "squeezenet", "-d", "t4", "-o", tmp_path, "-q")
    assert cli(*asked, "--batches", "1", "--dtypes", "float16")[0] == 0
    assert traced == ["squeezenet1_0", "squeezenet1_1"]
    first = rows_of(tmp_path)
    assert cli(*asked, "--batches", "1", "--dtypes", "float16")[0] == 0
    assert traced == ["squeezenet1_0", "squeezenet1_1"] and rows_of(tmp_path) == first
    assert cli(*asked, "--batches", "1,8", "--dtypes", "float16,bfloat16")[0] == 0
    rows = rows_of(tmp_path)
    assert len(rows) == 8
    assert [row for row in rows if row["dtype"] == "float16" and row["batch"] == "1"] == first
    for row in rows:
        known = row["dtype"] == "float16"
        assert bool(row["utilization"]) == known and ("no stated peak for bfloat16" in row["error"]) != known
    assert float(first[0]["top1"]) == pytest.approx(58.092) and first[0]["side"] == "224"
    page = (tmp_path / "survey.md").read_text()
    assert "modelled, none is measured" in page and "## Not surveyed" in page and "squeezenet1_1" in page
    assert {p.name for p in tmp_path.glob("*.png")} == {"utilization-throughput.png", "utilization-top1.png"}


def test_a_killed_survey_keeps_the_networks_it_has(tmp_path, monkeypatch):
    def die(name):
        if name == "squeezenet1_1":
            raise KeyboardInterrupt
        return published(name)

    published = many.published
    monkeypatch.setattr(many, "published", die)
    asked = {"names": "squeezenet", "batches": (1,), "dtypes": ("float16",)}
    with pytest.raises(KeyboardInterrupt):
        many.survey_all(WaveModel(load_device("t4")), tmp_path, **asked)
    assert [row["model"] for row in rows_of(tmp_path)] == ["squeezenet1_0"]
    monkeypatch.setattr(many, "published", published)
    assert many.survey_all(WaveModel(load_device("t4")), tmp_path, **asked) == 2


def test_files_of_another_source_or_kind_are_refused(tmp_path):
    asked = {"names": ["squeezenet1_1"], "batches": (1,), "dtypes": ("float16",)}
    many.survey_all(WaveModel(load_device("t4")), tmp_path, **asked)
    with pytest.raises(FormatError, match=r"holds a survey by wave model of T4.* not by wave model of H200"):
        many.survey_all(WaveModel(load_device("h200")), tmp_path, **asked)
    (tmp_path / "survey.csv").write_text("model,price\nresnet18,3\n")
    with pytest.raises(FormatError, match="its columns differ"):
        many.survey_all(WaveModel(load_device("t4")), tmp_path, **asked)


def test_a_network_that_cannot_be_traced_is_a_row_with_the_reason(tmp_path, monkeypatch):
    from tailprune.core.errors import TraceError

    def refuse(name):
        raise TraceError("it cannot be followed.")

    monkeypatch.setattr(many, "published", refuse)
    many.survey_all(WaveModel(load_device("t4")), tmp_path, names=["alexnet"], batches=(1,), dtypes=("float16",))
    assert rows_of(tmp_path)[0]["error"] == "it cannot be followed."
    assert "it cannot be followed." in (tmp_path / "survey.md").read_text()


def test_the_page_names_measured_latencies_as_measured():
    row = dict.fromkeys(many.FIELDS, "") | {
        "model": "net", "family": "nets", "side": "32", "macs": "1e6", "batch": "1", "dtype": "float32", "latency_kind": "measured",
        "latency_origin": "a table", "latency_us": "10", "images_per_s": "100000", "utilization": "0.5", "beyond_peak": "0",
    }  # fmt: skip
    text = survey_page([row])
    assert "measured layers: a table" in text and "modelled, none" not in text and "50.0%" in text


def test_plots_refuse_what_they_cannot_show():
    import torch
    from torch import nn

    graph = trace_model(nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 3)), torch.zeros(1, 3, 8, 8))

    class Source:
        origin = "a clock"

        def latency_us(self, shape):
            return 1.0

        def kind(self, shape):
            return "measured"

    with pytest.raises(InvalidShape, match="no device with a stated peak"):
        plot_time_map(survey_utilization(graph, Source(), place=False))
    with pytest.raises(InvalidShape, match="top1"):
        plot_networks([NetworkUse(name="a", family="f", utilization=0.1, images_per_s=1.0)], by="top1")
