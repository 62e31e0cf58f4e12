"""Timings of matrix products from somebody's CSV, for a calibration."""

from __future__ import annotations

import csv
import os
from pathlib import Path

from ..core.errors import FormatError, InvalidShape
from ..core.shapes import LayerShape

COLUMNS = ("m", "n", "k", "latency_us")


def read_timings(path: str | os.PathLike[str], *, dtype: str) -> list[tuple[LayerShape, float]]:
    """Rows m, n, k, latency_us (and dtype, where they differ) as linear layers of m tokens, k in and n out.

    FormatError names the file, the line and the cell; the unit is in the column's name, and another one is refused.
    """
    try:
        with Path(path).open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            missing = [column for column in COLUMNS if column not in (reader.fieldnames or ())]
            if missing:
                raise FormatError(
                    f"{path} lacks the column {missing[0]}; it has {', '.join(reader.fieldnames or ('none',))}. "
                    f"A CSV of timings has {', '.join(COLUMNS)} (microseconds), and dtype where rows differ."
                )
            return [_timing(cells, dtype, f"{path} line {line}") for line, cells in enumerate(reader, start=2)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise FormatError(f"Cannot read {path}: {error}.") from error


def _timing(cells: dict[str, str], dtype: str, where: str) -> tuple[LayerShape, float]:
    try:
        m, n, k = (int(cells[name]) for name in "mnk")
        us = float(cells["latency_us"])
        return LayerShape(op="linear", batch=m, in_channels=k, out_channels=n, dtype=cells.get("dtype") or dtype), us
    except InvalidShape as error:
        raise FormatError(f"{where}: {error}") from error
    except (TypeError, ValueError) as error:
        raise FormatError(f"{where} is no row of integers m, n, k and a number latency_us ({error}).") from error
