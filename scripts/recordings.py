"""Public GPU latency recordings as (layer, microseconds): what the wave model is fitted to and judged by.

The recordings stay outside the repository; their folder is named on the command line. Rows are split into a fitting and a test half by
what stays fixed along a curve (tokens and depth of a product, geometry and in-channels of a convolution), so that replicates and the
neighbours of a test row are test rows too.
"""

from __future__ import annotations

import csv
import gzip
import math
import random
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from tailprune.core.device import DeviceSpec
from tailprune.core.shapes import LayerShape
from tailprune.waves import load_device


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One timing. `source` tells apart whoever timed it; `kernel` and `blocks` are the profiler's, where recorded."""

    shape: LayerShape
    us: float
    source: str
    fixed: tuple[int, ...]
    kernel: str = ""
    blocks: int = 0

    @property
    def test(self) -> bool:
        return zlib.crc32(repr(self.fixed).encode()) % 2 == 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """All timings of one card from one file. `axes`: along which widths neighbours are compared."""

    name: str
    device: DeviceSpec
    rows: tuple[Row, ...]
    axes: tuple[str, ...]

    @property
    def fitting(self) -> list[Row]:
        return [row for row in self.rows if not row.test]

    def test(self, most: int) -> list[Row]:
        """Whole curves of the test half, drawn at random, about `most` rows."""
        curves: dict[tuple[int, ...], list[Row]] = defaultdict(list)
        for row in self.rows:
            if row.test:
                curves[row.fixed].append(row)
        chosen: list[Row] = []
        for fixed in random.Random(0).sample(sorted(curves), len(curves)):
            if len(chosen) >= most:
                break
            chosen += curves[fixed]
        return chosen


def neighbours(rows: Sequence[Row], axis: str) -> list[tuple[int, int]]:
    """Index pairs of rows that are next to each other along an axis (out_channels or batch), all else equal."""
    lines: dict[tuple[object, ...], list[tuple[int, int]]] = defaultdict(list)
    for index, row in enumerate(rows):
        shape = row.shape
        rest = (
            shape.in_channels if not shape.depthwise else 0,
            shape.batch if axis == "out_channels" else shape.out_channels,
        )
        key = (row.source, rest, shape.in_hw, shape.kernel_hw, shape.stride_hw, shape.epilogue, shape.depthwise)
        lines[key].append((getattr(shape, axis), index))
    pairs = []
    for line in lines.values():
        line.sort()
        pairs += [(i, j) for (low, i), (high, j) in pairwise(line) if high > low]
    return pairs


def step_edges(rows: Sequence[Row]) -> dict[str, list[int]]:
    """Upward edges of 5 % and more of each step-1 curve: batch -> the last width of a plateau.

    All layers of one sweep were timed side by side at each width, and a factor that they share at a width and not at the next is the card's
    clock, not a step: the median over the sweep's layers of what leaves a running median of 13 is taken off. An edge is where the median of
    the 4 widths behind it exceeds that of the 4 before.
    """
    curves: dict[str, np.ndarray] = {}
    by_source: dict[str, dict[int, float]] = defaultdict(dict)
    for row in rows:
        by_source[row.source][row.shape.batch] = math.log(row.us)
    for source, points in by_source.items():
        curves[source] = np.array([points[width] for width in sorted(points)])
    found = {}
    for source, curve in curves.items():
        sweep = [
            curves[other] - _running_median(curves[other])
            for other in curves
            if other.rsplit(" ", 1)[0] == source.rsplit(" ", 1)[0]
        ]
        still = curve - np.median(sweep, axis=0)
        jumps = np.array(
            [np.median(still[i : i + 4]) - np.median(still[max(i - 4, 0) : i]) for i in range(1, len(still))]
        )
        found[source] = local_peaks(jumps, math.log(1.05), apart=4)
    return found


def local_peaks(jumps: np.ndarray, least: float, *, apart: int) -> list[int]:
    """Positions (from 1) of the largest jumps, `apart` from each other: one edge is one edge."""
    chosen: list[int] = []
    for index in np.argsort(-jumps):
        if jumps[index] < least:
            break
        if all(abs(int(index) + 1 - other) >= apart for other in chosen):
            chosen.append(int(index) + 1)
    return sorted(chosen)


def _running_median(curve: np.ndarray, half: int = 6) -> np.ndarray:
    padded = np.pad(curve, half, mode="edge")
    return np.median(np.lib.stride_tricks.sliding_window_view(padded, 2 * half + 1), axis=1)


def recordings(folder: Path) -> Iterator[Recording]:
    """Every card of every file in the folder."""
    yield from _read(
        folder / "gemm_bf16_a100_l40s_pro6000.csv.gz", _gemm("bfloat16", "framework"), ("out_channels", "batch")
    )
    yield from _read(folder / "linear_fp16_rtx3090_step1.csv.gz", _linear, ("batch",))
    yield from _read(folder / "gemm_fp32_p100_v100_a100.csv.gz", _fp32, ("out_channels", "batch"))
    yield from _read(folder / "conv_fp32_v100_tensorrt.csv.gz", _conv, ("out_channels",))


def _read(
    path: Path, parse: Callable[[dict[str, str]], tuple[str, str, Row] | None], axes: tuple[str, ...]
) -> Iterator[Recording]:
    found: dict[tuple[str, str], list[Row]] = defaultdict(list)
    with gzip.open(path, "rt", newline="") as file:
        for cells in csv.DictReader(file):
            if (parsed := parse(cells)) is not None:
                found[parsed[:2]].append(parsed[2])
    for (device, what), rows in found.items():
        spec = load_device(_DEVICES.get(device, device))
        yield Recording(name=f"{spec.name}, {what}", device=spec, rows=tuple(rows), axes=axes)


_DEVICES = {"RTX-PRO-6000-Server": "RTX PRO 6000", "V100": "V100 SXM2"}


def _gemm(dtype: str, source: str) -> Callable[[dict[str, str]], tuple[str, str, Row]]:
    def parse(cells: dict[str, str]) -> tuple[str, str, Row]:
        m, n, k = (int(cells[name]) for name in "mnk")
        shape = LayerShape(op="linear", batch=m, in_channels=k, out_channels=n, dtype=dtype)
        return (
            cells["gpu"],
            "bf16 GEMM",
            Row(shape=shape, us=float(cells["latency_us"]), source=cells[source], fixed=(m, k)),
        )

    return parse


def _linear(cells: dict[str, str]) -> tuple[str, str, Row]:
    m, n, k = (int(cells[name]) for name in "mnk")
    shape = LayerShape(op="linear", batch=m, in_channels=k, out_channels=n, dtype="float16")
    source = f"{cells['model']} tp{cells['tp']} {cells['layer']}"
    return cells["gpu"], "fp16 linear", Row(shape=shape, us=float(cells["latency_us"]), source=source, fixed=(n, k))


def _fp32(cells: dict[str, str]) -> tuple[str, str, Row] | None:
    """Batched products are no layer of a LayerShape; the file's linear layers are."""
    if cells["op"] != "linear":
        return None
    m, n, k = (int(cells[name]) for name in "mnk")
    shape = LayerShape(op="linear", batch=m, in_channels=k, out_channels=n)
    blocks = int(cells["grid_x"]) * int(cells["grid_y"]) * int(cells["grid_z"])
    row = Row(
        shape=shape, us=1e3 * float(cells["latency_ms"]), source="", fixed=(m, k), kernel=cells["kernel"], blocks=blocks
    )
    return cells["gpu"], "fp32 linear", row


def _conv(cells: dict[str, str]) -> tuple[str, str, Row]:
    batch, ins, rows, columns, outs, kernel, stride = (
        int(cells[name]) for name in ("batch", "in_c", "in_h", "in_w", "out_c", "kernel", "stride")
    )
    depthwise = cells["type"] == "Depthwise"
    shape = LayerShape(
        op="conv", batch=batch, in_channels=ins, out_channels=outs, in_hw=(rows, columns), kernel_hw=(kernel, kernel),
        stride_hw=(stride, stride), padding_hw=(kernel // 2, kernel // 2), conv_groups=ins if depthwise else 1,
        memory_format="contiguous", epilogue=("add",) if cells["elt_fused"] == "1" else (),
    )  # fmt: skip
    fixed = (batch, 0 if depthwise else ins, rows, columns, kernel, stride)
    what = "fp32 depthwise convolution" if depthwise else "fp32 convolution"
    return "V100", what, Row(shape=shape, us=float(cells["latency_us"]), source="", fixed=fixed)
