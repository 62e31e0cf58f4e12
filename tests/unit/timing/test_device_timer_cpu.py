"""DeviceTimer("cpu"): samples, failures and the state it leaves. No assertion on how long anything takes."""

from __future__ import annotations

import gc

import pytest
import torch

from tailprune.core.errors import InvalidShape, TailpruneError
from tailprune.core.shapes import LayerShape
from tailprune.timing import DeviceTimer, device_timer


def conv(out_channels: int = 8, **changes: object) -> LayerShape:
    fields = dict(op="conv", batch=1, in_channels=4, out_channels=out_channels, in_hw=(5, 5), kernel_hw=(3, 3),
                  padding_hw=(1, 1), epilogue=("bias", "relu"))  # fmt: skip
    return LayerShape(**{**fields, **changes})


@pytest.fixture
def timer() -> DeviceTimer:
    return DeviceTimer("cpu", max_visits=6)


@pytest.mark.usefixtures("calm_core")
def test_keeps_every_raw_time_and_the_shape(timer: DeviceTimer) -> None:
    sample = timer.time(conv())
    assert sample.shape == conv()
    assert len(sample.times_us) == 6
    assert sample.warmups >= 2
    assert sample.utc
    assert min(sample.times_us) <= sample.median_us <= max(sample.times_us)


def test_failures_become_samples_and_the_rest_goes_on(timer: DeviceTimer, monkeypatch: pytest.MonkeyPatch) -> None:
    build = device_timer.build_block

    def breaking(shape: LayerShape, bank: object) -> object:
        if shape.out_channels == 9:
            raise RuntimeError("could not create a primitive descriptor\nstack")
        if shape.out_channels == 10:
            raise RuntimeError(
                "[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: 9 bytes"
            )
        if shape.out_channels == 11:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return build(shape, bank)

    monkeypatch.setattr(device_timer, "build_block", breaking)
    samples = {s.shape.out_channels: s for s in timer.time_many([conv(c) for c in range(8, 13)])}
    assert sorted(samples) == [8, 9, 10, 11, 12]
    assert samples[9].flags == ("refused",)
    assert samples[9].note == "could not create a primitive descriptor"
    assert samples[10].flags == samples[11].flags == ("out_of_memory",)
    assert [c for c, s in samples.items() if s.usable] in ([8, 12], [12, 8])


def test_fails_in_the_middle_of_the_visits(timer: DeviceTimer, monkeypatch: pytest.MonkeyPatch) -> None:
    build = device_timer.build_block

    def breaking(shape: LayerShape, bank: object) -> object:
        block, calls = build(shape, bank), iter(range(10**9))
        if shape.out_channels == 9:
            forward = block.module.forward

            def failing(*inputs: torch.Tensor) -> torch.Tensor:
                if next(calls) >= 4:
                    raise RuntimeError("out of memory")
                return forward(*inputs)

            block.module.forward = failing
        return block

    monkeypatch.setattr(device_timer, "build_block", breaking)
    samples = {s.shape.out_channels: s for s in timer.time_many([conv(8), conv(9)])}
    assert samples[8].usable
    assert samples[9].flags == ("out_of_memory",)
    assert not samples[9].usable


def test_a_programming_error_is_not_hidden_as_a_refusal(timer: DeviceTimer, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(shape: LayerShape, bank: object) -> object:
        raise AttributeError("a bug")

    monkeypatch.setattr(device_timer, "build_block", broken)
    with pytest.raises(AttributeError):
        timer.time(conv())


def test_a_shape_beyond_the_memory_is_never_tried(timer: DeviceTimer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_timer, "available_bytes", lambda device: 100)
    sample = timer.time(conv())
    assert sample.flags == ("out_of_memory",)
    assert "are free" in sample.note


def test_int8_is_refused_with_the_reason(timer: DeviceTimer) -> None:
    sample = timer.time(conv(dtype="int8"))
    assert sample.flags == ("refused",)
    assert "TensorRT" in sample.note


@pytest.mark.parametrize("dtype", ["float32", "tf32", "float16", "bfloat16"])
def test_every_float_dtype_is_timed(timer: DeviceTimer, dtype: str) -> None:
    assert timer.time(conv(dtype=dtype)).usable


def test_leaves_no_state_behind() -> None:
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        timer = DeviceTimer("cpu", threads=1, max_visits=6)
        seen = []
        for _ in timer.time_many([conv(8), conv(9)]):
            seen.append(
                (torch.get_num_threads(), gc.isenabled(), torch.is_grad_enabled(), torch.is_inference_mode_enabled())
            )
            break  # an abandoned run has to be as clean as a finished one
        assert seen == [(2, True, True, False)]
        assert torch.get_num_threads() == 2
        assert torch.get_default_dtype() == torch.float32
        assert torch.equal(torch.rand(3), expected)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("runtime", ["eager", "compile", "onnxruntime"])
def test_another_cache_state_is_another_environment(runtime: str) -> None:
    warm, after_work = (DeviceTimer("cpu", l2=l2, runtime=runtime).environment for l2 in ("warm", "4 MiB"))
    refused, _ = warm.differences(after_work)
    assert refused == {"l2": ("warm", "4 MiB")}


def test_a_lost_device_ends_the_run_with_what_to_do(timer: DeviceTimer, monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(device: object) -> None:
        raise RuntimeError("CUDA error: unspecified launch failure")

    monkeypatch.setattr(timer, "device", torch.device("cuda", 0))
    monkeypatch.setattr(torch.cuda, "synchronize", lost)
    with pytest.raises(
        TailpruneError, match=r"stopped answering while timing conv .*CUDNN_STATUS.*Start a new process"
    ):
        timer._failure(conv(), RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"))


def test_a_cudnn_error_in_mid_run_is_one_refused_shape(timer: DeviceTimer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timer, "device", torch.device("cuda", 0))
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    sample = timer._failure(conv(), RuntimeError("cuDNN error: CUDNN_STATUS_NOT_SUPPORTED\nstack"))
    assert (sample.flags, sample.note) == (("refused",), "cuDNN error: CUDNN_STATUS_NOT_SUPPORTED")


def test_environment_names_the_machine(timer: DeviceTimer) -> None:
    environment = timer.environment
    assert torch.backends.cpu.get_cpu_capability() in environment.device
    assert (environment.runtime, environment.l2, environment.threads, environment.num_sms) == ("eager", "4 MiB", 1, 1)
    assert environment.torch == torch.__version__
    assert environment.allocator
    assert timer.environment == DeviceTimer("cpu").environment


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"device": "tpu"}, "Cannot time on the device 'tpu'; allowed: cpu, cuda, cuda:N."),
        ({"device": "cuda:99"}, "There is no cuda:99 here"),
        ({"threads": 0}, "at least one thread"),
        ({"precision": 0.0}, "Precision and confidence must lie between 0 and 1"),
        ({"max_visits": 2}, "A stopping rule needs"),
        ({"runtime": "cuda-graph"}, "Unknown runtime 'cuda-graph'; allowed on cpu: eager, compile, onnxruntime."),
        ({"runtime": "imported"}, "Unknown runtime 'imported'"),
        ({"l2": "cold"}, "Unknown l2 'cold'; allowed on a CPU: warm, or the MiB of other work"),
    ],
)
def test_refuses_in_one_sentence(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidShape, match=message.replace("(", r"\(")):
        DeviceTimer(**arguments)


def test_a_shape_asked_for_twice_is_timed_once_though_a_call_is_cut_into_parts() -> None:
    shapes = [LayerShape(op="linear", batch=2, in_channels=8, out_channels=width) for width in (8, 16, 24, 8, 32, 16)]
    timer = DeviceTimer("cpu", max_visits=6)
    timer.most_alive = 2
    samples = list(timer.time_many(shapes))
    assert sorted(sample.shape.out_channels for sample in samples) == [8, 16, 24, 32]
