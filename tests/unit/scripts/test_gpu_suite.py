"""The GPU suite without a GPU: its CUDA form with a simulated timer, its journal, its stops, and the causes it reads."""

from __future__ import annotations

import dataclasses
import time
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import tailprune
from scripts import gpu_report, gpu_suite
from scripts.suite import bench, kernels, stages
from scripts.suite.bench import Bench, Setting, TimeIsUp
from scripts.suite.journal import Journal
from scripts.suite.kernels import Launch, cause, launches_of_trace, primitives_of_log, resident_blocks
from tailprune.core.errors import InvalidShape
from tailprune.core.shapes import LayerShape

H200 = SimpleNamespace(
    multi_processor_count=132, max_threads_per_multi_processor=2048, regs_per_multiprocessor=65536,
    shared_memory_per_multiprocessor=233472,
)  # fmt: skip


def tiny() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 40, 3, padding=1), nn.BatchNorm2d(40), nn.ReLU(), nn.Conv2d(40, 48, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(48, 10),
    )  # fmt: skip


def fake_timer(device: str, *, runtime: str | None = None, **settings: object) -> tailprune.SimulatedTimer:
    timer = tailprune.SimulatedTimer(tailprune.load_device("h200"))
    timer.device = torch.device("cpu")  # kernels are looked at where this machine can
    timer.within = lambda graph: timer
    return timer


def fake_measure(models, images, *, rounds: int, device: str, **settings: object) -> tailprune.ModelTimings:
    """Three times for each network, of the simulated device's order: more parameters take longer."""
    assert all(next(model.parameters()).dtype == images.dtype for model in models.values())
    assert settings["tf32"] is False
    assert settings["memory_format"] == "channels_last"
    times = {name: (float(sum(p.numel() for p in model.parameters())),) * 3 for name, model in models.items()}
    return tailprune.ModelTimings(
        times_us=times, environment=fake_timer(device).environment, input_shapes=(tuple(images.shape),),
        dtype="float16", memory_format="channels_last",
    )  # fmt: skip


@pytest.fixture
def simulated(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU suite of one small network whose layers are timed by the wave model."""
    main = Setting(network="tiny", batch=32, side=16, dtype="float16")
    form = dataclasses.replace(
        stages.FORMS["cuda"], main=main, layers=("3", "0"), others=(), published=main, variants=()
    )
    monkeypatch.setitem(stages.FORMS, "cpu", form)
    monkeypatch.setitem(stages.FORMS, "cuda", form)
    monkeypatch.setattr(stages, "RATIOS", (0.5,))
    monkeypatch.setattr(stages, "PUBLISHED_RATIOS", (0.4,))
    monkeypatch.setattr(tailprune, "DeviceTimer", fake_timer)
    monkeypatch.setattr(tailprune, "measure_model", fake_measure)
    monkeypatch.setattr(bench.torchvision.models, "get_model", lambda name, weights: tiny())
    monkeypatch.setattr(
        stages, "launches", lambda shape, device: (Launch(name=f"block {-(-shape.out_channels // 8)}", us=1.0),)
    )
    bench.load_network.cache_clear()
    yield
    bench.load_network.cache_clear()


def test_a_whole_run_its_files_and_its_page(simulated, tmp_path, monkeypatch, capsys) -> None:
    out = tmp_path / "out"
    assert gpu_suite.main(["--out", str(out), "--tiers", "ABC", "--max-minutes", "5"]) == 0
    assert "complete after" in capsys.readouterr().out
    assert sorted(file.name for file in out.iterdir()) == [
        "journal.jsonl",
        "table-simulated.csv.gz",
        "table-simulated.db",
    ]
    journal = Journal(out / "journal.jsonl")
    assert not [entry for entry in journal.entries.values() if "error" in entry]
    with tailprune.LatencyTable.open(out / "table-simulated.db", read_only=True) as table:
        layouts = {sample.shape.memory_format for sample in table.samples()}
    assert layouts == {"channels_last"}, "what is predicted lies in memory as what is measured"
    faster = next(journal.of("sweep"))["contestants"][1]
    assert faster["name"] == "tailprune faster" and faster["predicted_us"] > 0 and set(faster["widths"])

    (tmp_path / "docs").mkdir()
    monkeypatch.setattr(gpu_report, "ROOT", tmp_path)
    gpu_report.write_page(journal, out)
    page = (tmp_path / "docs/results-gpu.md").read_text()
    for said in (
        "# Results on a GPU: H200 SXM",
        "132 SMs",
        "magnitude global",
        "tier A",
        "complete",
        "commit",
        "kernel switch",
    ):
        assert said in page
    pictures = {line.partition("](")[2].rstrip(")") for line in page.splitlines() if line.startswith("![")}
    assert pictures and all((tmp_path / "docs" / picture).exists() for picture in pictures)


def test_a_filling_takes_its_share_of_the_time_and_no_more(simulated, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(stages, "FILL_SHARE", 0.0)
    assert gpu_suite.main(["--out", str(tmp_path), "--tiers", "A"]) == 0
    journal = Journal(tmp_path / "journal.jsonl")
    (filled,) = journal.of("fill")
    assert filled["summary"].startswith("stopped after") and filled["table_shapes"] >= 1
    assert list(journal.of("sweep")), "what comes behind it was measured all the same"


def test_a_second_run_measures_nothing_again(simulated, tmp_path, monkeypatch) -> None:
    assert gpu_suite.main(["--out", str(tmp_path), "--tiers", "A"]) == 0
    before = len(Journal(tmp_path / "journal.jsonl").entries)
    monkeypatch.setattr(tailprune, "measure_model", lambda *a, **k: pytest.fail("measured again"))
    assert gpu_suite.main(["--out", str(tmp_path), "--tiers", "A"]) == 0
    assert len(Journal(tmp_path / "journal.jsonl").entries) <= before + 1  # the second run's own line


def test_no_time_is_a_clean_stop(simulated, tmp_path, capsys) -> None:
    assert gpu_suite.main(["--out", str(tmp_path), "--tiers", "A", "--max-minutes", "0"]) == 0
    assert "stages left" in capsys.readouterr().out
    assert not [name for name in Journal(tmp_path / "journal.jsonl").entries if not name.startswith("run")]


def test_time_that_ends_inside_a_stage_keeps_its_samples(simulated, tmp_path) -> None:
    found = Bench("cpu", tmp_path, deadline=time.monotonic() - 1, precision=0.02)
    shape = LayerShape(op="linear", batch=8, in_channels=64, out_channels=64)
    with pytest.raises(TimeIsUp):
        found.measure([shape, shape.with_channels(out_channels=72)])
    assert len(found.table()) == 1
    found.close()


def test_a_stage_that_fails_is_recorded_and_the_next_one_runs(tmp_path) -> None:
    def fails(bench, journal):
        raise InvalidShape("This runtime is not known.")

    todo = [stages.Stage(name="a 1", run=fails), stages.Stage(name="b 2", run=lambda bench, journal: {"found": 1})]
    journal = Journal(tmp_path / "journal.jsonl")
    assert gpu_suite.run_stages(todo, SimpleNamespace(out=tmp_path, deadline=time.monotonic() + 60), journal) == 0
    assert journal.entries["a 1"]["error"] == "InvalidShape: This runtime is not known."
    assert [entry["found"] for entry in journal.of("b")] == [1]
    todo[0] = stages.Stage(name="a 1", run=lambda bench, journal: {"found": 2})  # a device that answers again
    todo[1] = stages.Stage(name="b 2", run=fails)
    gpu_suite.run_stages(todo, SimpleNamespace(out=tmp_path, deadline=time.monotonic() + 60), journal)
    assert [journal.entries[name]["found"] for name in ("a 1", "b 2")] == [2, 1]


def test_a_line_cut_short_by_a_kill_is_run_again(tmp_path) -> None:
    path = tmp_path / "journal.jsonl"
    Journal(path).append("a 1", {"x": 1})
    with path.open("a") as file:
        file.write('{"stage": "b 2", "x')
    journal = Journal(path)
    assert list(journal.entries) == ["a 1"]
    journal.append("b 2", {"x": 2})
    assert list(Journal(path).entries) == ["a 1", "b 2"]


def test_the_cuda_form_lists_each_stage_once_most_valuable_first() -> None:
    names = [stage.name for stage in stages.stages(stages.FORMS["cuda"], "ABC")]
    assert len(names) == len(set(names))
    assert names[0] == "fill resnet50 batch 32, 224x224, float16"
    assert sum(name.startswith("sweep resnet50 batch 32, 224x224, float16, magnitude global") for name in names) == 13
    assert stages.coarse_first((0.1, 0.2, 0.3, 0.4, 0.5)) == (0.1, 0.4, 0.2, 0.3, 0.5)


def launch(name: str = "k", blocks: int = 132, **fields: object) -> tuple[Launch, ...]:
    return (Launch(name=name, grid=(blocks, 1, 1), block=(256, 1, 1), us=5.0, **fields),)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("below", "above", "alignment", "why"),
    [
        (launch("a"), launch("b"), (8, 1), "kernel switch"),
        (launch(blocks=132, registers=255), launch(blocks=140, registers=255), (8, 1), "wave"),
        (launch(blocks=120, registers=255), launch(blocks=130, registers=255), (8, 1), "tile"),
        (launch(), launch(), (8, 1), "alignment"),
        (launch(), launch(), (1, 1), "unexplained"),
        ((), launch(), (8, 1), "unexplained"),
        ((Launch(name="brg Acdb48a", us=1.0),), (Launch(name="brg Acdb64a", us=1.0),), (8, 1), "kernel switch"),
        ((Launch(name="brg Acdb48a", us=1.0),), (Launch(name="brg Acdb48a", us=1.0),), (8, 1), "unexplained"),
    ],
)
def test_a_cause_is_read_from_evidence_alone(below, above, alignment, why) -> None:
    assert cause(below, above, alignment, H200)[0] == why


def test_the_longest_kernel_decides() -> None:
    padding = Launch(name="pad", us=0.1)
    assert cause((padding, *launch("main")), launch("main"), (1, 1), H200)[0] == "unexplained"


def test_residency_is_the_scarcest_resource() -> None:
    assert resident_blocks(launch()[0], H200) == 8
    assert resident_blocks(launch(registers=255)[0], H200) == 1
    assert resident_blocks(launch(shared_bytes=100_000)[0], H200) == 2


def test_kernels_are_read_from_a_profilers_trace_in_order() -> None:
    arguments = {"grid": [66, 2, 1], "block": [128, 1, 1], "registers per thread": 168, "shared memory": 8192}
    trace = {"traceEvents": [
        {"cat": "kernel", "name": "second", "ts": 2, "dur": 1.5, "args": {}},
        {"cat": "kernel", "name": "first", "ts": 1, "dur": 3.0, "args": arguments},
        {"cat": "cpu_op", "name": "aten::conv2d", "ts": 0, "args": {}},
    ]}  # fmt: skip
    first, second = launches_of_trace(trace)
    assert (first.name, first.num_blocks, first.registers, first.shared_bytes) == ("first", 132, 168, 8192)
    assert second.name == "second"


def test_primitives_are_read_from_onednns_log() -> None:
    log = (
        "onednn_verbose,v1,info,cpu,runtime:OpenMP,nthr:2\n"
        "onednn_verbose,v1,primitive,exec,cpu,reorder,jit:uni,undef,src:f32::blocked:acdb::f0 dst:f32:p:blocked:Acdb48a::f0,,,33x64,0.01\n"
        "onednn_verbose,v1,primitive,exec,cpu,convolution,brg_conv_fwd:avx512_core,forward_training,"
        "src:f32::blocked:acdb::f0 wei:f32:ap:blocked:Acdb48a::f0 bia:f32:a:blocked:a::f0,attr,alg,mb8_ic64oc50_ih16,0.978\n"
    )
    (found,) = primitives_of_log(log)
    assert found.name == "convolution brg_conv_fwd:avx512_core Acdb48a"
    assert found.us == pytest.approx(978)
    assert found.grid == (2, 1)  # 50 output channels in blocks of 48; inputs are not cut
    assert kernels.channel_blocks("ABcd16b16a", "mb8_ic33oc17_ih16") == (2, 3)
    assert kernels.channel_blocks("", "mb8") == ()
    before, after = (Launch(name="brg", grid=(blocks, 1), us=1.0) for blocks in (1, 2))
    assert cause((before,), (after,), (8, 1)) == ("tile", "brg: 1 channel blocks before, 2 after")


def test_this_machines_own_primitives_are_seen() -> None:
    shape = LayerShape(op="conv", batch=2, in_channels=16, out_channels=24, in_hw=(8, 8), epilogue=("bias", "relu"))
    assert all(isinstance(found, Launch) for found in kernels.launches(shape, torch.device("cpu")))
