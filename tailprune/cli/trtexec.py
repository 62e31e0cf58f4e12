"""`tailprune table import --trtexec`: TensorRT's layer timings, matched to a network's layers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from ..core.environment import Environment
from ..core.errors import InvalidShape
from ..tables import LatencyTable, import_trtexec, merge
from .console import note, print_json
from .models import NetworkOptions, load_model

PANEL = "TensorRT"


@dataclass(frozen=True, kw_only=True)
class TrtexecOptions:
    """What a profile does not say of itself: which network at which batch and dtype, on which device."""

    trtexec: Annotated[
        bool, typer.Option("--trtexec", help="The source is what trtexec --exportProfile wrote.", rich_help_panel=PANEL)
    ] = False
    layer_info: Annotated[
        Path | None,
        typer.Option(
            help="What --exportLayerInfo with --profilingVerbosity=detailed wrote: layers are then matched by size, too.",
            rich_help_panel=PANEL,
        ),
    ] = None
    model: Annotated[
        str | None,
        typer.Option(
            "--model", "-m", help="torchvision:NAME, timm:NAME or path/to/file.py:build.", rich_help_panel=PANEL
        ),
    ] = None
    input_shape: Annotated[
        str | None,
        typer.Option(help="channels,rows,columns of one image; 3,224,224 if not given.", rich_help_panel=PANEL),
    ] = None
    batch: Annotated[int, typer.Option("--batch", "-b", help="Images per call.", rich_help_panel=PANEL)] = 1
    dtype: Annotated[str, typer.Option(help="float32, tf32, float16, bfloat16 or int8.", rich_help_panel=PANEL)] = (
        "float16"
    )
    device: Annotated[
        str | None,
        typer.Option("--device", "-d", help='Where it was measured, such as "Tesla T4".', rich_help_panel=PANEL),
    ] = None
    power_mode: Annotated[str, typer.Option(help='A Jetson\'s power mode, such as "15 W".', rich_help_panel=PANEL)] = ""
    tensorrt: Annotated[str, typer.Option(help="TensorRT's version.", rich_help_panel=PANEL)] = ""


def import_profile(profile: Path, file: Path, options: TrtexecOptions, *, json: bool) -> None:
    """Match, add what matched, list what did not."""
    if options.model is None or options.device is None:
        raise InvalidShape(
            "A TensorRT profile says neither which network it is of nor where it was taken: add --model and --device."
        )
    network = NetworkOptions(
        model=options.model, input_shape=options.input_shape, batch=options.batch, dtype=options.dtype
    )
    environment = Environment(device=options.device, power_mode=options.power_mode, runtime="imported",
                              fusion="TensorRT", runtime_version=options.tensorrt)  # fmt: skip
    read = import_trtexec(profile, load_model(network).trace(), environment, layer_info=options.layer_info)
    with LatencyTable.open(file, environment=environment) as table:
        merge(table, read.table)
    if json:
        print_json({"matched": {name: list(rows) for name, rows in read.matched.items()}, "unmatched": dict(read.unmatched),
                    "missing": list(read.missing), "matched_us": read.matched_us, "total_us": read.total_us})  # fmt: skip
        return
    print(read.summary())
    for name, reason in read.unmatched:
        note(f"  not matched: {name}: {reason}")
    for name in read.missing:
        note(f"  no time: {name}")
