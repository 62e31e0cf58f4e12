"""Every classification network of torchvision, at several batches and dtypes: rows in a CSV that an interruption does not lose."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.artifact import write_text_atomically
from ..core.errors import FormatError, InvalidShape, MissingLatency, TraceError
from ..core.graph import ModelGraph
from ..core.protocols import LatencySource
from ..survey import Survey, survey_utilization
from ..survey.losses import PARTS

#: What a row says; `error` stands in place of the numbers where a network or dtype cannot be surveyed.
FIELDS = (
    "model", "family", "side", "parameters", "macs", "weights", "top1", "batch", "dtype", "latency_origin", "latency_kind",
    "latency_us", "images_per_s", "utilization", "beyond_peak", "intensity", *PARTS, "untraced", "error",
)  # fmt: skip
_NOTHING: Callable[[int, int, str], None] = lambda done, total, what: None  # noqa: E731


@dataclass(frozen=True, kw_only=True)
class Published:
    """A network with the image size and top-1 (percent) of its best published weights."""

    graph: ModelGraph
    family: str
    side: int
    weights: str
    top1: float | None


def survey_all(
    latency: LatencySource,
    folder: Path,
    *,
    names: str | Sequence[str] = "",
    batches: Sequence[int],
    dtypes: Sequence[str],
    progress: Callable[[int, int, str], None] = _NOTHING,
) -> int:
    """Survey networks into `folder`/survey.csv, draw its plots and write its page; the number of rows.

    `names` is a list, or what names start with. Rows that are there already, from the same latency source, are kept: run it
    again to go on. Raises InvalidShape for names that do not exist, FormatError for a file of another source.
    """
    from ..reports import write_survey_page

    chosen = _chosen(names)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "survey.csv"
    rows = _read(path, latency.origin)
    wanted = [(name, [(b, d) for b in batches for d in dtypes if (name, str(b), d) not in rows]) for name in chosen]
    for done, (name, cells) in enumerate(wanted):
        progress(done, len(wanted), name)
        if cells:
            for row in _rows_of(name, cells, latency):
                rows[row["model"], row["batch"], row["dtype"]] = row
            write_text_atomically(path, _as_csv(rows.values()))
    progress(len(wanted), len(wanted), "")
    write_survey_page(list(rows.values()), folder)
    return len(rows)


def published(name: str) -> Published:
    """A torchvision classifier without data, traced at the image size of its weights with the highest top-1."""
    import torch
    import torchvision

    from ..tracing import trace_model

    options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    builder = torchvision.models.get_model_builder(name)
    try:
        with torch.device("meta"):
            model = builder(weights=None, **options)
    except NotImplementedError:  # RegNet computes its widths with tensors
        model = builder(weights=None, **options).to("meta")
    fixed = getattr(model, "image_size", None)  # of a vision transformer
    found = [w for w in torchvision.models.get_model_weights(name) if fixed in (None, w.transforms().crop_size[0])]
    best = max(found, key=_top1, default=None)
    side = best.transforms().crop_size[0] if best else fixed or 224
    graph = trace_model(model.eval(), torch.zeros(1, 3, side, side, device="meta"), name=name)
    family = builder.__module__.rpartition(".")[2]
    return Published(
        graph=graph, family=family, side=side, weights=best.name if best else "", top1=_top1(best) if best else None
    )


def _top1(weights: Any) -> float:
    return float(weights.meta["_metrics"]["ImageNet-1K"]["acc@1"])


def _chosen(names: str | Sequence[str]) -> list[str]:
    import torchvision

    known: list[str] = torchvision.models.list_models(module=torchvision.models)
    found = [name for name in known if (name.startswith(names) if isinstance(names, str) else name in names)]
    if not found:
        raise InvalidShape(
            f"torchvision has no classification network {names!r}; it has {', '.join(known[:5])} and others."
        )
    return found


def _rows_of(name: str, cells: Sequence[tuple[int, str]], latency: LatencySource) -> Iterator[dict[str, str]]:
    try:
        network = published(name)
    except TraceError as error:
        for batch, dtype in cells:
            yield _text(
                {"model": name, "batch": batch, "dtype": dtype, "latency_origin": latency.origin, "error": error}
            )
        return
    about = {
        "model": name, "family": network.family, "side": network.side, "weights": network.weights, "top1": network.top1,
        "parameters": network.graph.num_parameters_at(), "macs": network.graph.macs_at(), "latency_origin": latency.origin,
        "untraced": len(network.graph.untraced),
    }  # fmt: skip
    for batch, dtype in cells:
        try:
            graph = network.graph.at_batch(batch, dtype=dtype, memory_format="channels_last")
            found: Mapping[str, object] = _numbers(survey_utilization(graph, latency, place=False))
        except (InvalidShape, MissingLatency) as error:  # no stated peak, or not in the table
            found = {"error": error}
        yield _text({**about, "batch": batch, "dtype": dtype, **found})


def _numbers(found: Survey) -> dict[str, object]:
    parts = {part: getattr(found.split, part) for part in PARTS} if found.split else {}
    return {
        "latency_kind": found.kind,
        "latency_us": found.latency_us,
        "images_per_s": found.images_per_s,
        "utilization": found.utilization,
        "beyond_peak": sum(layer.beyond_peak for layer in found.layers),
        "intensity": found.intensity,
        **parts,
    }


def _text(row: Mapping[str, object]) -> dict[str, str]:
    def said(value: object) -> str:
        return "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)

    return {field: said(row.get(field)) for field in FIELDS}


def _as_csv(rows: Any) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=FIELDS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _read(path: Path, origin: str) -> dict[tuple[str, str, str], dict[str, str]]:
    if not path.exists():
        return {}
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        rows = list(reader)
    if tuple(reader.fieldnames or ()) != FIELDS:
        raise FormatError(
            f"{path} is not a survey of this tailprune: its columns differ. Choose another folder, or delete it."
        )
    if others := {row["latency_origin"] for row in rows} - {origin}:
        raise FormatError(f"{path} holds a survey by {sorted(others)[0]}, not by {origin}. Choose another folder.")
    return {(row["model"], row["batch"], row["dtype"]): row for row in rows}
