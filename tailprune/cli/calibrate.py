"""`tailprune calibrate`: fit the wave model to a device, from a few timings."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from ..core.errors import InvalidShape
from ..core.shapes import LayerShape
from ..tables import LatencyTable
from ..waves import calibrate as fit
from ..waves import calibration_shapes, load_device, read_timings, save_calibration
from .console import PANEL, Json, note, out, print_json, progress
from .latency import here, make_timer

Timings = list[tuple[LayerShape, float]]


def calibrate(
    output: Annotated[Path, typer.Option("--out", "-o", help="The calibration (.json); use it as --device.")],
    device: Annotated[
        str, typer.Option("--device", "-d", help="A known GPU; `cuda` times the shapes on the one at hand.")
    ] = "cuda",
    table: Annotated[Path | None, typer.Option("--table", "-t", help="Take the timings of a latency table.")] = None,
    csv: Annotated[Path | None, typer.Option("--csv", help="Take them from a CSV: m, n, k, latency_us.")] = None,
    dtype: Annotated[str, typer.Option(help="What to time, or what a CSV's rows are.")] = "float16",
    json: Json = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress on stderr.", rich_help_panel=PANEL)] = False,
) -> None:
    """Fit the wave model's shares of a GPU's datasheet to about 24 timings, and keep them.

    Example: tailprune calibrate -d a100 --csv gemm.csv --dtype bfloat16 -o a100.json && tailprune steps -d a100.json -m ...
    """
    if not output.name.endswith(".json"):
        raise InvalidShape(f"A calibration is a .json file, got --out {output}; `--device` knows it by that ending.")
    if table is not None and csv is not None:
        raise InvalidShape("Timings come from --table or from --csv; give one.")
    name, timings, source = device, [], ""
    if csv is not None:
        timings, source = read_timings(csv, dtype=dtype), csv.name
    elif table is not None:
        with LatencyTable.open(table, create=False, read_only=True) as opened:
            timings = [(s.shape, opened.latency_us(s.shape)) for s in opened.samples() if s.usable]
            name, source = (opened.environment.device if here(device) else device), table.name
    elif here(device):
        name, timings = _time(device, dtype, quiet=quiet)
        source = "timed here"
    else:
        raise InvalidShape(f"{device} is not at hand: give its timings with --csv or --table, or use --device cuda.")
    found = fit(load_device(name), timings, origin=f"calibrated on {len(timings)} timings, {source}")
    save_calibration(output, name, found, source=source)
    if json:
        print_json({kind: dataclasses.asdict(shares) for kind, shares in found.items()})
        return
    for kind, shares in found.items():
        out.print(
            f"{kind}: {shares.compute:.0%} of the peak, {shares.bandwidth:.0%} of the bandwidth, "
            f"{shares.overhead_us:.1f} us a launch ({shares.origin})"
        )
    note(f"written to {output}; use it as --device {output}", quiet=quiet)


def _time(device: str, dtype: str, *, quiet: bool) -> tuple[str, Timings]:
    """The calibration shapes on the GPU at hand, and its name."""
    timer = make_timer(device)
    load_device(timer.environment.device)  # a CPU, or a card without a datasheet here: said before anything is timed
    shapes = calibration_shapes(dtype)
    timings: Timings = []
    with progress("calibrating", quiet=quiet) as report:
        for sample in timer.time_many(shapes):
            if sample.usable:
                timings.append((sample.shape, sample.median_us))
            report(len(timings), len(shapes), str(sample.shape))
    return timer.environment.device, timings
