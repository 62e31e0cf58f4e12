"""One contract for every runtime that a CPU has: eager, compiled, onnxruntime. No claim on how fast any of them is."""

from __future__ import annotations

import math
import threading

import pytest
import torch
from torch import nn

from tailprune.core.errors import EnvironmentMismatch, InvalidShape, MissingDependency
from tailprune.core.shapes import LayerShape
from tailprune.filling import measure_missing
from tailprune.tables import LatencyTable
from tailprune.timing import DeviceTimer, measure_model, onnx_session
from tailprune.timing.blocks import build_block
from tailprune.timing.machine import pinned
from tailprune.timing.random_data import RandomBank
from tailprune.timing.runtimes import RUNTIMES, choose_runtime

CPU = torch.device("cpu")
CONV = LayerShape(op="conv", batch=2, in_channels=8, out_channels=8, in_hw=(6, 6), kernel_hw=(3, 3), padding_hw=(1, 1),
                  epilogue=("bias", "add", "relu"))  # fmt: skip
LINEAR = LayerShape(op="linear", batch=2, in_channels=8, out_channels=5, epilogue=("bias",))


@pytest.fixture(params=RUNTIMES["cpu"])
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_every_shape_answers_with_raw_times_in_its_own_environment(name: str) -> None:
    timer = DeviceTimer("cpu", runtime=name, l2="warm", max_visits=6)
    samples = {sample.shape: sample for sample in timer.time_many([CONV, LINEAR])}
    assert set(samples) == {CONV, LINEAR}
    for sample in samples.values():
        assert sample.usable, sample.note
        assert all(math.isfinite(time) and time > 0 for time in sample.times_us)
    assert timer.environment.runtime == name


def test_the_call_computes_what_the_module_does(name: str) -> None:
    block = build_block(CONV, RandomBank(CPU))
    with pinned(threads=1):
        expected = block()
        call = choose_runtime(CPU, name, "warm").deploy(block.module, block.inputs)
        found = call() if name != "onnxruntime" else None
    if found is not None:
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert block.inputs[0].data_ptr() % 64 == 0


def test_runtimes_never_share_a_table(name: str) -> None:
    table = LatencyTable.in_memory(DeviceTimer("cpu", runtime=name).environment)
    for other in set(RUNTIMES["cpu"]) - {name}:
        with pytest.raises(EnvironmentMismatch, match="runtime is"):
            measure_missing(table, [CONV], DeviceTimer("cpu", runtime=other))


@pytest.mark.usefixtures("calm_core")
def test_whole_models_run_in_it_and_stay_as_they_are(name: str) -> None:
    models = {str(width): nn.Sequential(nn.Conv2d(3, width, 3), nn.ReLU()) for width in (4, 6)}
    timings = measure_model(models, torch.randn(1, 3, 8, 8), runtime=name, rounds=6)
    assert {len(times) for times in timings.times_us.values()} == {6}
    assert timings.environment.runtime == name
    assert all(type(model) is nn.Sequential and model.training for model in models.values())


def test_more_than_eight_compiled_shapes_stay_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dynamo gives up on a ninth version of one function, without a word: it would time eager as compiled."""
    compiled: list[object] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> object:
        compiled.append(graph)
        return graph.forward

    compile_module = torch.compile
    monkeypatch.setattr(torch, "compile", lambda module, **options: compile_module(module, backend=backend, **options))
    shapes = [LINEAR.with_channels(out_channels=width) for width in range(1, 13)]
    bank = RandomBank(CPU)
    with pinned(threads=1):
        for shape in shapes:
            block = build_block(shape, bank)
            call = choose_runtime(CPU, "compile", "warm").deploy(block.module, block.inputs)
            before = len(compiled)
            call()
            assert len(compiled) == before, "a timed call compiles nothing"
    assert len(compiled) == len(shapes)


def test_onnxruntime_gets_its_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int]] = []
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession

    def noting(model: bytes, options: object, **more: object) -> object:
        asked.append((options.intra_op_num_threads, options.inter_op_num_threads))
        return session(model, options, **more)

    monkeypatch.setattr(onnxruntime, "InferenceSession", noting)
    running = threading.active_count()
    DeviceTimer("cpu", runtime="onnxruntime", threads=2, max_visits=6).time(LINEAR)
    assert asked == [(2, 1)] * 2, "the block and its spare"
    assert threading.active_count() == running


def test_onnxruntime_names_its_version_and_what_it_refuses() -> None:
    timer = DeviceTimer("cpu", runtime="onnxruntime", max_visits=6)
    assert timer.environment.runtime_version == pytest.importorskip("onnxruntime").__version__
    sample = timer.time(LayerShape(op="linear", batch=2, in_channels=8, out_channels=5, dtype="bfloat16"))
    assert sample.flags == ("refused",)
    assert sample.note == "onnxruntime runs no bfloat16 layers on a CPU; use float32."


def test_a_missing_onnxruntime_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    with pytest.raises(MissingDependency, match=r"pip install tailprune\[onnx\]"):
        onnx_session.load_onnxruntime()


def test_a_runtime_of_another_device_is_refused() -> None:
    with pytest.raises(InvalidShape, match="Unknown runtime 'cuda-graph'; allowed on cpu: eager, compile, onnxruntime"):
        choose_runtime(CPU, "cuda-graph", "warm")
