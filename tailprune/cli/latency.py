"""`--device` and `--table`: where latencies come from, and who can measure what they lack."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..core.errors import InvalidShape, TableError
from ..core.protocols import FirstOf, LatencySource, LayerTimer
from ..tables import LatencyTable, shipped_table
from ..waves import SimulatedTimer, WaveModel, load_device
from .console import warn


@dataclass(frozen=True, kw_only=True)
class Latency:
    """A source to plan with; a table and a timer where new measurements can be kept."""

    source: LatencySource
    table: LatencyTable | None = None
    timer: LayerTimer | None = None
    notes: tuple[str, ...] = ()


def here(device: str | None) -> bool:
    """Whether a device name means this machine, not a GPU known by its datasheet."""
    return device is not None and device.partition(":")[0] in ("cpu", "cuda")


def open_latency(*, device: str | None, table: Path | None, threads: int, quiet: bool) -> Latency:
    """A table, a table plus the device it belongs to, or the wave model of a known GPU."""
    if device is None and table is None:
        raise InvalidShape(
            "Latencies come from --table FILE, or from --device NAME for a GPU the wave model knows; give one."
        )
    if table is not None:
        timer = make_timer(device, threads=threads) if here(device) else None
        if timer is None and not table.exists():
            raise TableError(f"Latency table {table} does not exist; fill one with `tailprune measure`.")
        opened = LatencyTable.open(table, environment=timer.environment if timer else None)
        for warning in opened.warnings:
            warn(warning, quiet=quiet)
        return Latency(source=opened, table=opened, timer=timer, notes=opened.warnings)
    assert device is not None
    if here(device):
        raise InvalidShape(f"--device {device} is measured, and measurements are kept: add --table FILE.")
    model = WaveModel(load_device(device))
    shipped = shipped_table(device)
    return Latency(source=FirstOf(shipped, model) if shipped is not None else model)


def make_timer(device: str | None, *, threads: int = 1, simulate: str | None = None, seed: int = 0) -> LayerTimer:
    """The device at hand, or a simulated one."""
    if simulate is not None:
        return SimulatedTimer(load_device(simulate), seed=seed)
    from ..timing import DeviceTimer

    return DeviceTimer(device or "cpu", threads=threads)
