"""What does a survey of many networks say? One page of markdown with two plots, from the rows of its CSV."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from ..core.artifact import write_text_atomically
from .canvas import save_figure
from .notation import quantity
from .survey_plots import NetworkUse, plot_networks

Row = Mapping[str, str]

_INTRO = """# How much of a GPU do networks use?

Utilization is the share of the time in which arithmetic at the stated peak FLOP/s of the dtype would be done, with two FLOP per
multiply-add of a direct product:

    utilization = sum of min(2 x multiply-adds / stated peak, latency) / sum of latencies        over the layers, in (0, 1]

It is not the busy percentage that monitors show: a GPU is 100 % busy while one SM of it works. A layer that is faster than a direct
product at the peak is **beyond the peak** and counts as fully used: it made fewer multiplications (Winograd's algorithm, for
convolutions in float32), or ran above the stated clock. How many layers do so is counted.

{kind}
"""
_KINDS = {
    "modelled": "**Every latency here is modelled, none is measured**: {origin}. Sums of layers, channels_last. Read it as what the\n"
    "arithmetic of tiles, waves, bytes and launches says about shapes, not as a benchmark of the card.",
    "measured": "Latencies are sums of measured layers: {origin}. Channels_last.",
}


def write_survey_page(rows: Sequence[Row], folder: Path, *, figures: str = "") -> None:
    """Write `folder`/survey.md and its two plots (in the subfolder `figures`)."""
    drawn = folder / figures
    drawn.mkdir(parents=True, exist_ok=True)
    shown = _shown(rows)
    uses = [_use(row) for row in shown]
    pictures = []
    short = (
        "; ".join(_conditions(shown[0]).split("; ")[:2]) if shown else ""
    )  # a source may add caveats: the page has them
    for by, file in (("images_per_s", "utilization-throughput.png"), ("top1", "utilization-top1.png")):
        if any(getattr(use, by) is not None for use in uses):
            save_figure(plot_networks(uses, by=by, title=short), drawn / file)  # type: ignore[arg-type]
            pictures.append((Path(figures) / file).as_posix())
    write_text_atomically(folder / "survey.md", survey_page(rows, pictures=pictures))


def survey_page(rows: Sequence[Row], *, pictures: Sequence[str] = ()) -> str:
    """The page's text. The widest table is at the largest batch and the dtype with the most rows there."""
    good = [row for row in rows if row["utilization"]]
    failed = [row for row in rows if not row["utilization"]]
    kinds = {row["latency_kind"] for row in good}
    kind = "modelled" if "modelled" in kinds or not kinds else "measured"
    origin = next((row["latency_origin"] for row in rows), "")
    parts = [_INTRO.format(kind=_KINDS[kind].format(origin=origin))]
    parts += [f"![Utilization of {len(_shown(rows))} networks]({picture})\n" for picture in pictures]
    if good:
        parts += [_by_batch(good), _networks(_shown(rows))]
    if failed:
        parts.append(_failures(failed))
    return "\n".join(parts)


def _shown(rows: Sequence[Row]) -> list[Row]:
    """The rows of one batch and dtype: the largest batch, the dtype that is used least of its peak there (the fastest one)."""
    good = [row for row in rows if row["utilization"]]
    if not good:
        return []
    batch = max(int(row["batch"]) for row in good)
    at = [row for row in good if int(row["batch"]) == batch]
    dtype = min(
        {row["dtype"] for row in at}, key=lambda d: (min(float(r["latency_us"]) for r in at if r["dtype"] == d), d)
    )
    return [row for row in at if row["dtype"] == dtype]


def _use(row: Row) -> NetworkUse:
    return NetworkUse(
        name=row["model"],
        family=row["family"],
        utilization=float(row["utilization"]),
        images_per_s=float(row["images_per_s"]),
        top1=float(row["top1"]) if row["top1"] else None,
    )


def _conditions(row: Row) -> str:
    return f"batch {row['batch']}, {row['dtype']}; {row['latency_origin']}"


def _by_batch(rows: Sequence[Row]) -> str:
    cells = sorted({(row["dtype"], int(row["batch"])) for row in rows})
    lines = [
        "## By batch and dtype",
        "",
        "| dtype | batch | networks | least | median | most used of the peak | networks with layers beyond it |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for dtype, batch in cells:
        here = [r for r in rows if r["dtype"] == dtype and int(r["batch"]) == batch]
        at = sorted(float(r["utilization"]) for r in here)
        beyond = sum(r["beyond_peak"] not in ("", "0") for r in here)
        middle = (at[(len(at) - 1) // 2] + at[len(at) // 2]) / 2
        lines.append(f"| {dtype} | {batch} | {len(at)} | {at[0]:.1%} | {middle:.1%} | {at[-1]:.1%} | {beyond} |")
    return "\n".join([*lines, ""])


def _networks(rows: Sequence[Row]) -> str:
    lines = [
        f"## Networks, {_conditions(rows[0])}",
        "",
        "Where the time goes is the wave model's opinion: arithmetic at the peak rate (which is utilization), launches, bytes,",
        "SMs idle in the tail, tiles beyond the output, and kernels below their peak. Top-1 is torchvision's, for the image size shown.",
        "",
        "| network | image | MACs per image | images/s | top-1 | utilization | launch | memory | tail | tiles | below peak |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for row in sorted(rows, key=lambda row: -float(row["utilization"])):
        total, used = float(row["latency_us"]), float(row["utilization"])
        shares = [
            f"{float(row[part]) / total:.1%}" if row[part] else "–"
            for part in ("launch_us", "memory_us", "tail_us", "tile_us", "rest_us")
        ]
        top1 = f"{float(row['top1']):.1f}" if row["top1"] else "–"
        cells = [row["model"], row["side"], quantity(float(row["macs"])), f"{float(row['images_per_s']):,.0f}", top1]
        lines.append(f"| {' | '.join([*cells, f'{used:.1%}', *shares])} |")
    return "\n".join([*lines, ""])


def _failures(rows: Sequence[Row]) -> str:
    lines = ["## Not surveyed", "", "| network | batch | dtype | why |", "|---|--:|---|---|"]
    lines += [f"| {r['model']} | {r['batch']} | {r['dtype']} | {r['error'] or 'no stated peak'} |" for r in rows]
    return "\n".join([*lines, ""])
