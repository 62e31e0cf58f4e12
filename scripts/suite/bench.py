"""The device at hand: its tables, its networks, and how much time is left on it."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
import torchvision
from torch import nn

import tailprune
from tailprune import LatencyTable, LayerShape, ModelGraph
from tailprune.filling import Progress, measure_missing

TORCH_DTYPE = {
    "float32": torch.float32, "tf32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16,
}  # fmt: skip
#: Shapes interleaved at a time: enough against drift, few enough that a stop does not leave hundreds begun.
MOST_ALIVE = 64


class TimeIsUp(Exception):
    """The minutes given are over; what was measured is in the table, and the stage is run again by the next call."""


class PartIsOver(Exception):
    """A part of the work had as much of the time as it may take; the rest goes on without."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One network as it is deployed: a latency holds for exactly this."""

    network: str  # a torchvision classifier, with random weights: latency depends on widths alone
    batch: int
    side: int
    dtype: str
    runtime: str | None = None  # None: the device's usual one, CUDA graphs or eager on a CPU

    def __str__(self) -> str:
        compiled = f" {self.runtime}" if self.runtime else ""
        return f"{self.network} batch {self.batch}, {self.side}x{self.side}, {self.dtype}{compiled}"


@dataclass(frozen=True, kw_only=True)
class Network:
    """A dense network, its deployed form with norms folded, and its graph at the setting's batch and dtype."""

    dense: nn.Module
    folded: nn.Module
    graph: ModelGraph


@cache
def load_network(setting: Setting) -> Network:
    torch.manual_seed(0)
    dense = torchvision.models.get_model(setting.network, weights=None).eval().to(memory_format=torch.channels_last)
    traced = tailprune.trace_model(dense, torch.randn(1, 3, setting.side, setting.side), name=setting.network)
    return Network(
        dense=dense,
        folded=tailprune.fold_norms(dense, traced),
        graph=traced.at_batch(setting.batch, dtype=setting.dtype, memory_format="channels_last"),
    )


class Bench:
    """Times layers into one table a runtime under `out`, until `deadline` (of time.monotonic).

    All networks of a runtime share a table.
    """

    def __init__(self, device: str, out: Path, deadline: float, precision: float) -> None:
        self.device, self.out, self.deadline, self.precision = device, out, deadline, precision
        self._timers: dict[str | None, tailprune.DeviceTimer] = {}
        self._tables: dict[str | None, LatencyTable] = {}

    def timer(self, runtime: str | None = None) -> tailprune.DeviceTimer:
        if runtime not in self._timers:
            self._timers[runtime] = tailprune.DeviceTimer(
                self.device, runtime=runtime, precision=self.precision, most_alive=MOST_ALIVE
            )
        return self._timers[runtime]

    def table(self, runtime: str | None = None) -> LatencyTable:
        """One open at a time: beside an open table lie two files of SQLite's, and few files may come back."""
        if runtime not in self._tables:
            self.close()
            environment = self.timer(runtime).environment
            path = self.out / f"table-{environment.runtime}.db"
            self._tables[runtime] = LatencyTable.open(path, environment=environment)
        return self._tables[runtime]

    def close(self) -> None:
        for table in self._tables.values():
            table.close()
        self._tables.clear()

    def watch(self, done: int = 0, total: int = 0, what: str = "") -> None:
        """A progress callback that ends the work when the time is up."""
        if time.monotonic() > self.deadline:
            raise TimeIsUp

    def watch_until(self, deadline: float) -> Progress:
        """The same for a part of the work that may take until then only."""

        def watch(done: int, total: int, what: str) -> None:
            self.watch(done, total, what)
            if time.monotonic() > deadline:
                raise PartIsOver

        return watch

    def measure(self, shapes: Iterable[LayerShape], runtime: str | None = None) -> None:
        """Time what the table lacks."""
        measure_missing(self.table(runtime), shapes, self.timer(runtime), progress=self.watch)

    def compare(self, models: dict[str, nn.Module], setting: Setting, rounds: int) -> tailprune.ModelTimings:
        """Whole networks, interleaved."""
        dtype = TORCH_DTYPE[setting.dtype]
        images = torch.randn(setting.batch, 3, setting.side, setting.side, generator=torch.Generator().manual_seed(0))
        return tailprune.measure_model(
            {name: copy.deepcopy(model).to(dtype) for name, model in models.items()},
            images.to(dtype),
            device=self.device,
            rounds=rounds,
            max_seconds=20.0,
            runtime=setting.runtime,
            tf32=setting.dtype == "tf32",
            memory_format=load_network(setting).graph.memory_format,
        )
