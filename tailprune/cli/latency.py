"""`--device` and `--table`: where latencies come from, and who can measure what they lack."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from ..core.environment import Environment
from ..core.errors import InvalidShape, TableError
from ..core.protocols import FirstOf, LatencySource, LayerTimer
from ..core.shapes import LayerShape
from ..filling import measure_chosen, measure_while
from ..tables import LatencyTable, shipped_table
from ..waves import wave_model
from .console import progress, resumable, warn

Decision = TypeVar("Decision")

PANEL = "Latency"
Threads = Annotated[int, typer.Option(help="CPU threads to time with.", rich_help_panel=PANEL)]
Runtime = Annotated[
    str | None,
    typer.Option(
        help="eager, compile or onnxruntime on a CPU; cuda-graph, eager or compile on CUDA. An existing table's own "
        "unless given.",
        rich_help_panel=PANEL,
    ),
]


@dataclass(frozen=True, kw_only=True)
class LatencyOptions:
    """A table, a device, or both: then what the table lacks can be measured."""

    device: Annotated[
        str | None,
        typer.Option(
            "--device",
            "-d",
            help="cpu, cuda, or a GPU's name for the wave model (see `tailprune table devices`).",
            rich_help_panel=PANEL,
        ),
    ] = None
    table: Annotated[
        Path | None,
        typer.Option("--table", "-t", help="A latency table that `tailprune measure` filled.", rich_help_panel=PANEL),
    ] = None
    threads: Threads = 1
    runtime: Runtime = None


@dataclass(frozen=True, kw_only=True)
class Latency:
    """A source to plan with; a table and a timer where new measurements can be kept."""

    source: LatencySource
    table: LatencyTable | None = None
    timer: LayerTimer | None = None
    notes: tuple[str, ...] = ()

    def answer(self, decide: Callable[[], Decision], *, quiet: bool) -> Decision:
        """What `decide` says of the source; with the device at hand, what the table lacks is measured for it."""
        if self.table is None or self.timer is None:
            return decide()
        with progress("measuring what is missing", quiet=quiet) as report, resumable():
            return measure_while(self.table, self.timer, decide, progress=report)

    def choose(
        self,
        decide: Callable[[LatencySource], Decision],
        chosen: Callable[[Decision], Iterable[LayerShape]],
        *,
        quiet: bool,
    ) -> Decision:
        """The same where only what was chosen has to be measured, and what it is compared with may be proposed."""
        if self.table is None or self.timer is None:
            return decide(self.source)
        with progress("measuring what is missing", quiet=quiet) as report, resumable():
            return measure_chosen(self.table, self.timer, decide, chosen, progress=report)


def here(device: str | None) -> bool:
    """Whether a device name means this machine, not a GPU known by its datasheet."""
    return device is not None and device.partition(":")[0] in ("cpu", "cuda")


def open_latency(options: LatencyOptions, *, quiet: bool) -> Latency:
    """A table, a table plus the device it belongs to, or the wave model of a known GPU."""
    device, table = options.device, options.table
    if device is None and table is None:
        raise InvalidShape(
            "Latencies come from --table FILE, or from --device NAME for a GPU the wave model knows; give one."
        )
    if table is not None:
        timer = None
        if here(device):
            timer = make_timer(device, threads=options.threads, runtime=options.runtime, like=environment_of(table))
        if timer is None and not table.exists():
            raise TableError(f"Latency table {table} does not exist; fill one with `tailprune measure`.")
        opened = LatencyTable.open(table, environment=timer.environment if timer else None)
        for warning in opened.warnings:
            warn(warning, quiet=quiet)
        return Latency(source=opened, table=opened, timer=timer, notes=opened.warnings)
    assert device is not None
    if here(device):
        raise InvalidShape(f"--device {device} is measured, and measurements are kept: add --table FILE.")
    model = wave_model(device)
    shipped = shipped_table(device)
    return Latency(source=FirstOf(shipped, model) if shipped is not None else model)


def make_timer(
    device: str | None,
    *,
    threads: int = 1,
    runtime: str | None = None,
    like: Environment | None = None,
) -> LayerTimer:
    """The device at hand; for a table measured on it already (`like`) in that table's runtime and cache state."""
    from ..timing import DeviceTimer

    timer = DeviceTimer(device or "cpu", threads=threads, runtime=runtime)
    if like is None or like.device != timer.environment.device or like.runtime in ("imported", "simulated"):
        return timer
    return DeviceTimer(timer.device, threads=threads, runtime=runtime or like.runtime, l2=like.l2, tf32=like.tf32,
                       autotuning=like.autotuning)  # fmt: skip


def environment_of(table: Path) -> Environment | None:
    """Where an existing table was measured; None for one still to be made."""
    if not table.is_file() or not table.stat().st_size:
        return None
    with LatencyTable.open(table, create=False, read_only=True) as opened:
        return opened.environment
