"""DeviceTimer("cuda") and measure_model on CUDA, as in tests/unit/timing."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from tailprune.core.errors import InvalidShape
from tailprune.core.shapes import LayerShape
from tailprune.timing import DeviceTimer, measure_model
from tailprune.timing.residuals import inside_us
from tailprune.tracing import trace_model

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch finds no CUDA device here")


def conv(out_channels: int = 64, **changes: object) -> LayerShape:
    fields = dict(op="conv", batch=4, in_channels=32, out_channels=out_channels, in_hw=(14, 14), kernel_hw=(3, 3),
                  padding_hw=(1, 1), dtype="float16", epilogue=("bias", "add", "relu"))  # fmt: skip
    return LayerShape(**{**fields, **changes})


@pytest.mark.parametrize("runtime", ["cuda-graph", "eager", "compile"])
@pytest.mark.parametrize("l2", ["warm", "cold"])
def test_every_runtime_and_cache_state_keeps_raw_times(runtime: str, l2: str) -> None:
    timer = DeviceTimer("cuda", runtime=runtime, l2=l2, max_visits=6)
    assert (timer.environment.runtime, timer.environment.l2) == (runtime, l2)
    samples = list(timer.time_many([conv(width) for width in (63, 64, 65)]))
    assert {s.shape.out_channels for s in samples} == {63, 64, 65}
    assert all(s.usable and all(math.isfinite(t) and t > 0 for t in s.times_us) for s in samples)


@pytest.mark.parametrize("dtype", ["float32", "tf32", "float16", "bfloat16"])
def test_every_float_dtype_is_timed_and_tf32_is_restored(dtype: str) -> None:
    before = (torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.benchmark)
    assert DeviceTimer("cuda", max_visits=6, autotuning=True).time(conv(dtype=dtype)).usable
    after = (torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.benchmark)
    assert after == before


@pytest.mark.parametrize("op", ["linear", "attention", "max_pool", "avg_pool", "elementwise"])
def test_every_op_is_captured(op: str) -> None:
    fields = {"linear": {"in_hw": (16, 1)}, "attention": {"in_hw": (16, 1), "conv_groups": 4}, "max_pool": {"kernel_hw": (2, 2)},
              "avg_pool": {"kernel_hw": (14, 14)}, "elementwise": {}}[op]  # fmt: skip
    shape = conv(op=op, **{"kernel_hw": (1, 1), "padding_hw": (0, 0), "in_channels": 64, **fields})
    sample = DeviceTimer("cuda", max_visits=6).time(shape)
    assert sample.usable, sample.note


def test_too_large_a_shape_is_recorded_and_the_next_one_runs() -> None:
    timer = DeviceTimer("cuda", max_visits=6)
    huge = conv(65536, batch=65536, epilogue=("bias",))
    samples = {s.shape: s for s in timer.time_many([huge, conv()])}
    assert samples[huge].flags == ("out_of_memory",)
    assert samples[conv()].usable


def test_states_and_runtimes_of_a_cpu_are_refused() -> None:
    with pytest.raises(InvalidShape, match="Unknown l2 '16 MiB'; allowed on CUDA: warm, cold"):
        DeviceTimer("cuda", l2="16 MiB")
    with pytest.raises(InvalidShape, match="allowed on cuda: cuda-graph, eager, compile"):
        DeviceTimer("cuda", runtime="onnxruntime")


def test_layers_inside_a_network_are_read_between_events() -> None:
    net = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 8, 3)).eval()
    images = torch.randn(4, 3, 32, 32)
    spent = inside_us(net, images, trace_model(net, images), torch.device("cuda", 0), threads=1, rounds=3)
    assert set(spent) == {"0", "2"}
    assert all(us > 0 for us in spent.values())


def test_environment_names_the_device() -> None:
    environment = DeviceTimer("cuda").environment
    properties = torch.cuda.get_device_properties(0)
    assert environment.device == properties.name
    assert environment.num_sms == properties.multi_processor_count
    assert environment.cuda == torch.version.cuda
    assert environment.cudnn == str(torch.backends.cudnn.version())
    assert environment.runtime == "cuda-graph"


@pytest.mark.parametrize("runtime", ["cuda-graph", "eager"])
def test_whole_models_are_measured_interleaved(runtime: str) -> None:
    models = {
        width: nn.Sequential(nn.Conv2d(3, width, 3), nn.ReLU(), nn.Conv2d(width, 8, 3)).half() for width in (16, 64)
    }
    named = {f"w{width}": model for width, model in models.items()}
    timings = measure_model(named, torch.randn(4, 3, 32, 32).half(), device="cuda", runtime=runtime, rounds=8)
    assert {len(times) for times in timings.times_us.values()} == {8}
    assert timings.verdict("w16", "w64").outcome in ("faster", "slower", "ambiguous")
    assert all(parameter.device.type == "cpu" for model in models.values() for parameter in model.parameters())
