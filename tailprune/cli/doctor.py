"""`tailprune doctor`: why is my pruned model not faster?"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from ..core.device import DeviceSpec
from ..core.errors import InvalidShape
from ..core.graph import ModelGraph
from ..core.plan import WidthPlan
from ..filling import measure_while
from ..planning import choose_host
from ..survey import Diagnosis, diagnose
from ..waves import load_device
from . import options as o
from .console import note, out, print_json, progress, resumable, warn
from .latency import Latency, here, open_latency
from .models import LoadedModel, load_model, read_state

#: Layers shown on the terminal; `--all`, `--json` and the page have the others.
SHOWN = 15
_PRUNED = "Pruned widths (one of these; none: the network as it stands)"


def doctor(
    model: o.Model,
    plan_file: Annotated[
        Path | None,
        typer.Option("--plan", "-p", help="A plan that `tailprune plan` saved.", rich_help_panel=_PRUNED),
    ] = None,
    pruned_weights: Annotated[
        Path | None,
        typer.Option(help="A checkpoint of the pruned network, whoever pruned it.", rich_help_panel=_PRUNED),
    ] = None,
    ratio: Annotated[
        float | None,
        typer.Option(help="What an unrounded host leaves that removes this share.", rich_help_panel=_PRUNED),
    ] = None,
    device: o.Device = None,
    table: o.Table = None,
    scope: o.Scope = "global",
    importance: o.Importance = "magnitude",
    weights: o.Weights = None,
    input_shape: o.InputShape = None,
    batch: o.Batch = 1,
    dtype: o.Dtype = "float32",
    memory_format: o.MemoryFormat = "channels_last",
    threads: o.Threads = 1,
    seed: o.Seed = 0,
    every: Annotated[bool, typer.Option("--all", help="Show every layer, not only the first.")] = False,
    html: o.Html = None,
    quiet: o.Quiet = False,
    json: o.Json = False,
) -> None:
    """Say why a pruned network is not faster, and which three changes of width would help most.

    The dense network is --model; what pruning left of it comes from --plan, --pruned-weights or --ratio. Without any of
    these the network is judged as it stands. With --table and the cpu or cuda device it was measured on, what the table
    lacks is measured; with --table and a GPU's name, that GPU's wave model says what binds each layer.

    Example: tailprune doctor -m torchvision:resnet50 --pruned-weights small.pt -d h200 -b 32 --dtype float16 --html why.html
    """
    from ..reports import diagnosis_table, write_doctor_page

    given = [name for name, value in (("--plan", plan_file), ("--pruned-weights", pruned_weights), ("--ratio", ratio)) if value is not None]  # fmt: skip
    if len(given) > 1:
        raise InvalidShape(f"The pruned widths come from one place, got {' and '.join(given)}; give one of them.")
    latency = open_latency(device=device, table=table, threads=threads, quiet=quiet)
    loaded = load_model(
        model,
        weights=weights,
        input_shape=input_shape,
        batch=batch,
        dtype=dtype,
        memory_format=memory_format,
        seed=seed,
    )
    graph = loaded.trace()
    notes = list(latency.notes)
    if ratio is not None and loaded.weights == "random":
        notes.append("weights are random, so which channels the host keeps means nothing; give --weights FILE")
        warn(notes[-1], quiet=quiet)
    widths, came_from = None, "the network as it stands"
    if plan_file is not None:
        widths, came_from = _planned_widths(graph, plan_file), f"plan {plan_file.name}"
    elif pruned_weights is not None:
        widths, came_from = _read_widths(graph, pruned_weights), f"checkpoint {pruned_weights.name}"
    elif ratio is not None:
        widths = _host_widths(loaded, graph, ratio, scope=scope, importance=importance, seed=seed)
        came_from = f"host at ratio {ratio}, {scope}, {importance}, weights {loaded.weights}"
    found = _diagnose(graph, widths, latency, device=device, quiet=quiet)
    for warning in found.warnings:
        warn(warning, quiet=quiet)
    if html is not None:
        write_doctor_page(
            found, html, provenance={"widths": came_from, "model": model, "dense weights": loaded.weights}
        )
        note(f"page written to {html}", quiet=quiet)
    if json:
        body: dict[str, Any] = {**found.to_dict(), "weights": loaded.weights, "widths_from": came_from}
        print_json({**body, "warnings": [*notes, *body["warnings"]]})
    else:
        out.print(diagnosis_table(found, most=None if every else SHOWN))
        print(found.summary())


def _diagnose(
    graph: ModelGraph, widths: Mapping[str, int] | None, latency: Latency, *, device: str | None, quiet: bool
) -> Diagnosis:
    """With the device at hand, what the table lacks is measured and the question asked again."""
    known: DeviceSpec | None = None if device is None or here(device) else load_device(device)
    if latency.table is None or latency.timer is None:
        return diagnose(graph, widths, latency.source, device=known if latency.table is not None else None)
    with progress("measuring what is missing", quiet=quiet) as report, resumable():
        return measure_while(
            latency.table, latency.timer, lambda: diagnose(graph, widths, latency.source), progress=report
        )


def _planned_widths(graph: ModelGraph, path: Path) -> dict[str, int]:
    plan = WidthPlan.load(path)
    plan.check(graph)
    return plan.widths


def _read_widths(graph: ModelGraph, path: Path) -> dict[str, int]:
    from ..tracing import read_widths

    return read_widths(graph, read_state(path))


def _host_widths(
    loaded: LoadedModel, graph: ModelGraph, ratio: float, *, scope: str, importance: str, seed: int
) -> dict[str, int]:
    from ..pruning import score_channels

    scores = choose_host(score_channels(loaded.module, graph, importance, seed=seed), ratio, scope=scope)  # type: ignore[arg-type]
    return {group.group: group.host_width for group in scores.groups}
