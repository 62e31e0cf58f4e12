"""The CPU's reading: one untimed call, the neighbours, the timed call; taken again where the core was taken away."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tailprune.core.errors import InvalidShape
from tailprune.timing import runtimes
from tailprune.timing.runtimes import MAX_CALLS, TAKES, HostEager, calls_per_reading, choose_runtime


class Noting(nn.Module):
    def __init__(self, log: list[str]) -> None:
        super().__init__()
        self.log = log

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.log.append("layer")
        return x


def test_neighbours_run_between_the_untimed_and_the_timed_call(monkeypatch: pytest.MonkeyPatch) -> None:
    log: list[str] = []
    monkeypatch.setattr(runtimes, "calls_per_reading", lambda us, device: 2)
    monkeypatch.setattr(runtimes, "preemptions", lambda: 0)
    prepared = HostEager(lambda: log.append("neighbours")).prepare(Noting(log), (torch.ones(1),))
    assert log == ["layer"] * prepared.warmups
    log.clear()
    reading = prepared.read()
    assert log == ["layer", "neighbours", "layer", "layer"]
    assert reading.us > 0
    assert not reading.disturbed


@pytest.mark.parametrize(
    ("counts", "takes", "disturbed"),
    [([0, 0], 1, False), ([0, 1, 1, 1], 2, False), ([0, 1, 1, 2, 2, 3], TAKES, True)],
)
def test_a_disturbed_reading_is_taken_again(
    monkeypatch: pytest.MonkeyPatch, counts: list[int], takes: int, disturbed: bool
) -> None:
    log: list[str] = []
    monkeypatch.setattr(runtimes, "calls_per_reading", lambda us, device: 1)
    answers = iter(counts)
    monkeypatch.setattr(runtimes, "preemptions", lambda: next(answers))
    prepared = HostEager().prepare(Noting(log), (torch.ones(1),))
    log.clear()
    assert prepared.read().disturbed is disturbed
    assert len(log) == 2 * takes


def test_short_calls_are_timed_several_at_a_time() -> None:
    assert calls_per_reading(1e6, "cpu") == calls_per_reading(20.0, "cpu") == 1
    assert calls_per_reading(19.0, "cpu") == 2
    assert calls_per_reading(3.0, "cuda") == 100
    assert calls_per_reading(0.0, "cpu") == MAX_CALLS


def test_a_cpu_takes_its_only_runtime() -> None:
    assert choose_runtime(torch.device("cpu"), None, "warm").name == "eager"
    with pytest.raises(InvalidShape, match="A CPU is timed eager and warm"):
        choose_runtime(torch.device("cpu"), "onnxruntime", "warm")
