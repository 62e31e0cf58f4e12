"""Options that several verbs share, written once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

_MODEL, _PRUNE, _LATENCY, _OUTPUT = "Model", "Host pruner", "Latency", "Output"

Model = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        help="torchvision:NAME, timm:NAME or path/to/file.py:build.",
        rich_help_panel=_MODEL,
        show_default=False,
    ),
]
Weights = Annotated[
    Path | None, typer.Option(help="Safetensors or a state dict; random weights otherwise.", rich_help_panel=_MODEL)
]
InputShape = Annotated[
    str | None, typer.Option(help="channels,rows,columns of one image [default: 3,224,224].", rich_help_panel=_MODEL)
]
Batch = Annotated[int, typer.Option("--batch", "-b", help="Images per call.", rich_help_panel=_MODEL)]
Dtype = Annotated[str, typer.Option(help="float32, tf32, float16, bfloat16 or int8.", rich_help_panel=_MODEL)]
MemoryFormat = Annotated[str, typer.Option(help="channels_last or contiguous.", rich_help_panel=_MODEL)]

Importance = Annotated[
    str, typer.Option(help="Score of a channel: magnitude, bn_scale or random.", rich_help_panel=_PRUNE)
]
Ratio = Annotated[
    float | None, typer.Option(help="Share of channels the host removes [default: 0.5].", rich_help_panel=_PRUNE)
]
Widths = Annotated[
    Path | None,
    typer.Option(
        help="The host's own choice instead of a ratio: JSON of layer: channels kept, or share removed.",
        rich_help_panel=_PRUNE,
    ),
]
FromZeros = Annotated[
    float | None,
    typer.Option(
        metavar="THRESHOLD",
        help="The host has zeroed channels in --weights: those with a norm of at most THRESHOLD (0 for exact zeros) go.",
        rich_help_panel=_PRUNE,
    ),
]
Scope = Annotated[str, typer.Option(help="Where the host ranks: global or local.", rich_help_panel=_PRUNE)]
Seed = Annotated[int, typer.Option(help="Seed of random weights and scores.", rich_help_panel=_PRUNE)]

Policy = Annotated[str, typer.Option(help="snap, shrink, grow, nearest or reallocate.", rich_help_panel=_PRUNE)]
Goal = Annotated[
    str,
    typer.Option(
        help="faster: least latency at no less importance; better: most importance at no more latency.",
        rich_help_panel=_PRUNE,
    ),
]
Reach = Annotated[int, typer.Option(help="How many step edges a group may move.", rich_help_panel=_PRUNE)]
BudgetText = Annotated[str | None, typer.Option("--budget", help="60%, 1800us, 1.8ms or host.", rich_help_panel=_PRUNE)]

Device = Annotated[
    str | None,
    typer.Option(
        "--device",
        "-d",
        help="cpu, cuda, or a GPU's name for the wave model (see `tailprune table devices`).",
        rich_help_panel=_LATENCY,
    ),
]
Table = Annotated[
    Path | None,
    typer.Option("--table", "-t", help="A latency table that `tailprune measure` filled.", rich_help_panel=_LATENCY),
]
Threads = Annotated[int, typer.Option(help="CPU threads to time with.", rich_help_panel=_LATENCY)]

Out = Annotated[Path | None, typer.Option("--out", "-o", help="File to write.", rich_help_panel=_OUTPUT)]
Json = Annotated[bool, typer.Option("--json", help="Results as JSON on stdout.", rich_help_panel=_OUTPUT)]
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="No progress and no notes on stderr.", rich_help_panel=_OUTPUT)
]
Plot = Annotated[Path | None, typer.Option(help="Write a plot here (.png or .svg).", rich_help_panel=_OUTPUT)]
Html = Annotated[Path | None, typer.Option(help="Write a self-contained page here.", rich_help_panel=_OUTPUT)]
