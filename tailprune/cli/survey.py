"""`tailprune survey`: what share of the device's peak is achieved, layer by layer, or by every network of a collection."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from ..core.device import DeviceSpec
from ..core.errors import InvalidShape
from ..survey import survey_utilization
from ..waves import load_device
from .console import PANEL as OUTPUT_PANEL
from .console import OutputOptions, note, out, print_json, progress, resumable, warn
from .grouped import grouped
from .latency import Latency, LatencyOptions, here, open_latency
from .models import PANEL, NetworkOptions, load_model  # PANEL: inherited annotations are read among this file's names
from .survey_all import survey_all

#: Layers shown on the terminal; `--json` has the others.
SHOWN = 15
#: Columns of a terminal that shows intensity, tiles and warps, too.
WIDE = 110
_ALL = "Many networks (instead of --model)"


@dataclass(frozen=True, kw_only=True)
class SurveyedOptions(NetworkOptions):
    """One network, where not all of a collection are asked for."""

    model: Annotated[
        str,
        typer.Option(
            "--model", "-m", help="torchvision:NAME, timm:NAME or path/to/file.py:build.", rich_help_panel=PANEL
        ),
    ] = ""


@dataclass(frozen=True, kw_only=True)
class AllOptions:
    """Which networks of a collection, and at what."""

    collection: Annotated[
        str | None,
        typer.Option("--all", help="torchvision: every classification network.", rich_help_panel=_ALL),
    ] = None
    only: Annotated[str, typer.Option(help="With --all: only names that start so.", rich_help_panel=_ALL)] = ""
    batches: Annotated[str, typer.Option(help="With --all: images per call, several.", rich_help_panel=_ALL)] = (
        "1,32,128"
    )
    dtypes: Annotated[str, typer.Option(help="With --all: several dtypes.", rich_help_panel=_ALL)] = "float32,float16"
    to: Annotated[
        Path,
        typer.Option(
            "--out", "-o", help="With --all: folder for survey.csv, plots and survey.md.", rich_help_panel=_ALL
        ),
    ] = Path("survey")


@grouped
def survey(
    *,
    network: SurveyedOptions,
    latency: LatencyOptions,
    every: AllOptions,
    plot: Annotated[
        Path | None,
        typer.Option(help="Draw where the time goes, .png or .svg (one network).", rich_help_panel=OUTPUT_PANEL),
    ] = None,
    output: OutputOptions,
) -> None:
    """Say what share of a device's peak FLOP/s a network achieves, and what the rest of its time goes into.

    Latencies come from --table or the wave model of --device; the stated peak is that of --device. With --all, every
    classification network of torchvision is surveyed at several batches and dtypes; run it again to go on after an interruption.

    Example: tailprune survey -m torchvision:resnet50 -d h200 -b 32 --dtype float16 --plot time.png
    """
    if bool(network.model) == bool(every.collection):
        raise InvalidShape("A survey is of one network or of many: give either --model or --all torchvision.")
    if every.collection:
        if every.collection != "torchvision":
            raise InvalidShape(f"--all knows the networks of torchvision, not of {every.collection!r}.")
        opened = open_latency(latency, quiet=output.quiet)
        with progress("surveying", quiet=output.quiet) as report, resumable():
            found = survey_all(
                opened.source, every.to, names=every.only, batches=_numbers(every.batches),
                dtypes=tuple(every.dtypes.split(",")), progress=report,
            )  # fmt: skip
        note(f"{found} rows in {every.to}/survey.csv; read {every.to}/survey.md", quiet=output.quiet)
        return
    _survey_one(network, latency, plot, output)


def _survey_one(network: NetworkOptions, latency: LatencyOptions, plot: Path | None, output: OutputOptions) -> None:
    from ..reports import plot_time_map, save_figure, survey_table

    graph = load_model(network).trace()
    opened = open_latency(latency, quiet=output.quiet)
    device = _device_of(latency, opened)
    found = opened.answer(lambda: survey_utilization(graph, opened.source, device=device), quiet=output.quiet)
    for warning in found.warnings:
        warn(warning, quiet=output.quiet)
    if plot is not None:
        origin = found.origin.partition(";")[0]  # its caveats stand in the summary
        title = f"{found.model}, batch {found.batch}, {found.dtype}: {origin}"
        save_figure(plot_time_map(found, title=title), plot)
        note(f"plot written to {plot}", quiet=output.quiet)
    if output.json:
        body = found.to_dict()
        print_json({**body, "warnings": [*opened.notes, *body["warnings"]]})
    else:
        out.print(survey_table(found, most=SHOWN, wide=out.width >= WIDE))
        print(found.summary())


def _device_of(options: LatencyOptions, opened: Latency) -> DeviceSpec | None:
    """The device whose peak counts: the one the table was measured on, or else the one named for the wave model."""
    named = load_device(options.device) if options.device is not None and not here(options.device) else None
    if opened.table is None:
        return named
    measured_on = opened.table.environment.device
    try:
        device = load_device(measured_on)
    except InvalidShape:  # a CPU, or a GPU without a data sheet here
        device = None
    if named is not None and named != device:
        raise InvalidShape(
            f"Table {options.table} was measured on {measured_on}, and its utilization is of that device's peak, not of "
            f"{named.name}'s. Leave --device out."
        )
    return device


def _numbers(text: str) -> tuple[int, ...]:
    try:
        found = tuple(int(part) for part in text.split(","))
    except ValueError:
        found = ()
    if not found or min(found) < 1:
        raise InvalidShape(f"--batches {text!r} is not understood; write whole numbers such as 1,32,128.")
    return found
