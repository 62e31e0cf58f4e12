"""The sum beside the whole, on made-up latencies; a real run of a tiny network, without a claim on its speed."""

from __future__ import annotations

import dataclasses
import itertools

import pytest
import torch
from torch import nn

from tailprune.core.environment import Environment
from tailprune.core.errors import InvalidShape, MissingLatency
from tailprune.core.sample import LatencySample
from tailprune.tables import LatencyTable
from tailprune.timing import ModelCheck, ModelTimings, check_model
from tailprune.timing.canary import Canary
from tailprune.timing.residuals import inside_us
from tailprune.tracing import trace_model

CPU = Environment(device="made up")
IMAGES = torch.randn(2, 3, 12, 12)


class Twice(nn.Module):
    """One module run twice, one functional pool, one nested layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.body = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU())
        self.head = nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.body(self.body(self.stem(x)))
        return self.head(nn.functional.adaptive_avg_pool2d(x, 1).flatten(1))


def table_for(graph, us: float = 10.0) -> LatencyTable:
    table = LatencyTable.in_memory(CPU)
    for index, (_, shape) in enumerate(graph.shapes_at()):
        table.add(LatencySample(shape=shape, times_us=(us * (index + 1),)))
    return table


def check(times: tuple[float, ...], predicted_us: float) -> ModelCheck:
    timings = ModelTimings(times_us={"model": times}, environment=CPU, input_shapes=((1, 3),), dtype="float32", memory_format="contiguous")  # fmt: skip
    return ModelCheck(predicted_us=predicted_us, timings=timings, layers=())


@pytest.mark.parametrize(
    ("predicted_us", "holds"), [(100.0, True), (104.9, True), (95.1, True), (106.0, False), (94.0, False)]
)
def test_five_percent_is_the_bar(predicted_us: float, holds: bool) -> None:
    found = check((100.0,) * 8, predicted_us)
    assert found.holds is holds
    assert found.gap == pytest.approx(predicted_us / 100 - 1)
    assert found.summary().startswith(f"the sum of layers {'holds' if holds else 'misses'}: {predicted_us:,.0f} us predicted, 100 us measured (whole passes 100 to 100)")  # fmt: skip


def test_a_sum_is_laid_beside_a_pass_put_together_from_calm_parts() -> None:
    found = check((150.0,) * 8, 100.0)
    parts = tuple(tuple(60.0 if part == hit % 2 else 50.0 for part in range(2)) for hit in range(8))
    timings = dataclasses.replace(found.timings, times_us={"model": (110.0,) * 8}, parts_us={"model": parts})
    found = dataclasses.replace(found, timings=timings)
    assert found.holds
    assert found.measured_us == 100.0
    assert "100 us measured (whole passes 110 to 110), +0.0%" in found.summary()


@pytest.mark.usefixtures("calm_core")
def test_the_sum_counts_calls_and_residuals_name_their_layers() -> None:
    net = Twice().eval()
    graph = trace_model(net, IMAGES)
    calls = {layer.name: layer.calls for layer in graph.layers}
    table = table_for(graph)
    found = check_model(table, graph, net, IMAGES, CPU, rounds=6)
    assert found.predicted_us == sum(layer.calls * table.latency_us(shape) for layer, shape in graph.shapes_at())
    assert [layer.name for layer in found.layers] == ["stem", "body.0", "head"]
    assert calls["body.0"] == 2
    assert all(layer.inside_us > 0 for layer in found.layers)
    assert [layer.residual_us for layer in found.layers] == [layer.table_us - layer.inside_us for layer in found.layers]
    assert len(found.timings.times_us["model"]) == 6


def test_the_model_keeps_no_hooks_and_its_mode() -> None:
    net = Twice().train()
    inside_us(net, IMAGES, trace_model(net, IMAGES), torch.device("cpu"), threads=1, rounds=2)
    assert net.training
    assert not any(module._forward_pre_hooks for module in net.modules())


@pytest.mark.parametrize(("slow_passes", "factor"), [(0, 1.0), (2, 1.0), (4, 1.03)])
def test_time_inside_belongs_to_the_layer_that_started_last_where_the_core_was_calm(
    monkeypatch: pytest.MonkeyPatch, slow_passes: int, factor: float
) -> None:
    """Each look at the clock is a microsecond after the last, 6 % more in slow passes; of eight passes four are too few to do without."""
    now, marks = 0, itertools.count(-4)  # four marks in the pass that is not timed, then five a pass: its end, too

    def slow(_canary: Canary) -> bool:
        nonlocal step
        passing = next(marks) // 5
        step = 1060 if 0 <= passing < slow_passes else 1000
        return step > 1000

    def look() -> int:
        nonlocal now
        now += step
        return now

    step = 1000
    monkeypatch.setattr(Canary, "is_slow", slow)
    monkeypatch.setattr("tailprune.timing.residuals.time.perf_counter_ns", look)
    net = Twice().eval()
    spent = inside_us(net, IMAGES, trace_model(net, IMAGES), torch.device("cpu"), threads=1, rounds=8)
    assert spent == pytest.approx({"stem": factor, "body.0": 2 * factor, "head": factor})


def test_an_unknown_layer_is_a_missing_latency() -> None:
    net = Twice().eval()
    with pytest.raises(MissingLatency):
        check_model(LatencyTable.in_memory(CPU), trace_model(net, IMAGES), net, IMAGES, CPU)


def test_a_graph_of_another_model_is_refused() -> None:
    graph = trace_model(Twice(), IMAGES)
    with pytest.raises(InvalidShape, match="None of the layers of Twice is a module of this model"):
        inside_us(nn.ReLU(), IMAGES, graph, torch.device("cpu"), threads=1, rounds=2)


def test_only_eager_networks_are_looked_into() -> None:
    net = Twice().eval()
    graph = trace_model(net, IMAGES)
    ran_elsewhere = Environment(device="made up", runtime="onnxruntime")
    pytest.importorskip("onnxruntime")
    assert check_model(table_for(graph), graph, net, IMAGES, ran_elsewhere, rounds=6).layers == ()
