"""Latency tables as CSV: one row per visit with its raw times, and one per held plateau, for pandas, for git and
for shipping. The first line is a comment with the environment as JSON: `pandas.read_csv(path, comment="#")`."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import re
import zlib
from collections.abc import Sequence
from pathlib import Path

from ..core.artifact import parse_artifact, write_bytes_atomically
from ..core.environment import Environment
from ..core.errors import FormatError, TableError, TailpruneError
from ..core.sample import LatencySample
from .held import HeldPlateau
from .rows import (
    SAMPLE_COLUMNS,
    SHAPE_COLUMNS,
    environment_from,
    sample_from_row,
    sample_row,
    shape_from_row,
    shape_row,
)
from .table import LatencyTable

CSV_FORMAT, CSV_VERSION = "tailprune-table", 1
#: `latency_us` is the visit's median, or the value of a held plateau that runs from this row's channels to `held_to`.
COLUMNS = ("kind", *SHAPE_COLUMNS, "held_to", "latency_us", *SAMPLE_COLUMNS)
_CHANNELS = re.compile(r"[0-9]+->[0-9]+")
_GZIP_MAGIC = b"\x1f\x8b"


def export_csv(table: LatencyTable, path: str | os.PathLike[str], *, digits: int | None = None) -> None:
    """Write every visit and held plateau; gzipped where the name ends in `.gz`. Whole or not at all.

    Times are exact by default; `digits` significant ones make a shipped table small (an event timer resolves 0.5 us).
    """
    visits = table.visits()
    text = io.StringIO(newline="")
    header = {
        "format": CSV_FORMAT,
        "version": CSV_VERSION,
        "rows": len(visits) + len(table.held),
        "environment": table.environment.as_dict(),
    }
    text.write(f"# {json.dumps(header)}\n")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(_sample_cells(visit, digits) for visit in visits)
    writer.writerows(_held_cells(plateau) for plateau in table.held)
    content = text.getvalue().encode("utf-8")
    # No time stamp inside: the same table gives the same bytes.
    write_bytes_atomically(path, gzip.compress(content, mtime=0) if str(path).endswith(".gz") else content)


def import_csv(path: str | os.PathLike[str]) -> LatencyTable:
    """Read what `export_csv` wrote into a table in memory; `merge` brings it into one on disk.

    FormatError with the line number for anything that is not such a row, and for a file that lost some.
    """
    return parse_csv(_content(Path(path)), str(path))


def parse_csv(content: str, origin: str) -> LatencyTable:
    """`import_csv` on text already read; `origin` names it in errors."""
    body, environment = parse_header(content.partition("\n")[0], origin)
    if not content.endswith("\n"):
        raise FormatError(f"{origin} is truncated: its last line has no end. Export it again.")
    table = LatencyTable.in_memory(environment)
    rows = _rows(content, origin)
    if body.get("rows", len(rows)) != len(rows):
        raise FormatError(
            f"{origin} is truncated or edited: {len(rows)} rows, but its first line states {body['rows']!r}. "
            "Export it again, or correct `rows`."
        )
    for line, (kind, *cells) in sorted(rows, key=lambda row: row[1][0] == "held"):  # ends before their plateaus
        try:
            _add_row(table, kind, cells)
        except (TailpruneError, ValueError) as error:
            raise FormatError(
                f"{origin}, line {line}: {str(error).rstrip('.')}. Mend the line, or export the table again."
            ) from error
    return table


def parse_header(line: str, origin: str) -> tuple[dict[str, object], Environment]:
    """The JSON body and the environment in the first line of an exported table."""
    if not line.startswith("# {"):
        raise FormatError(
            f"{origin}, line 1: no environment; the first line of an exported table is `# {{...}}` in JSON."
        )
    body = parse_artifact(line[2:], format=CSV_FORMAT, version=CSV_VERSION, origin=f"{origin}, line 1,")
    return body, environment_from(body.get("environment"), origin)


def _sample_cells(sample: LatencySample, digits: int | None) -> list[object]:
    times, *rest = sample_row(sample)
    if digits is not None:
        times = " ".join(f"{time:.{digits}g}" for time in sample.times_us)
    latency = repr(float(sample.median_us)) if sample.usable else ""
    return ["measured", *shape_row(sample.shape), "", latency, times, *rest]


def _held_cells(plateau: HeldPlateau) -> list[object]:
    held_to = f"{plateau.high.in_channels}->{plateau.high.out_channels}"
    return ["held", *shape_row(plateau.low), held_to, repr(float(plateau.us)), "", 0, "", "", ""]


def _add_row(table: LatencyTable, kind: str, cells: Sequence[str]) -> None:
    shape = shape_from_row(cells[: len(SHAPE_COLUMNS)])
    held_to, latency, *sample_cells = cells[len(SHAPE_COLUMNS) :]
    if kind == "measured":
        table.add(sample_from_row(shape, sample_cells))
    elif kind == "held":
        if not _CHANNELS.fullmatch(held_to):
            raise TableError(f"held_to must be two channel counts such as 64->96, got {held_to!r}.")
        in_channels, out_channels = map(int, held_to.split("->"))
        table.hold(shape, shape.with_channels(in_channels=in_channels, out_channels=out_channels), float(latency))
    else:
        raise TableError(f"the kind is {kind!r}, not measured or held.")


def _rows(content: str, origin: str) -> list[tuple[int, list[str]]]:
    """(line number in the file, cells in the order of COLUMNS) of each row; columns of the user's own are passed over."""
    reader = csv.reader(io.StringIO(content.partition("\n")[2], newline=""), strict=True)
    limit = csv.field_size_limit(len(content) + 1)  # the raw times of one visit may exceed the default of 128 KiB
    try:
        names = next(reader, [])
        missing = [name for name in COLUMNS if name not in names]
        if missing:
            raise FormatError(
                f"{origin}, line 2: the columns {', '.join(missing)} are missing. Export the table again."
            )
        order = [names.index(name) for name in COLUMNS]
        rows = []
        for cells in filter(None, reader):
            if len(cells) != len(names):
                raise csv.Error(f"{len(cells)} cells where {len(names)} belong")
            rows.append((reader.line_num + 1, [cells[place] for place in order]))
        return rows
    except csv.Error as error:
        line = reader.line_num + 1
        raise FormatError(f"{origin}, line {line}: {error}. Mend the line, or export the table again.") from error
    finally:
        csv.field_size_limit(limit)


def _content(path: Path) -> str:
    try:
        raw = path.read_bytes()
        content = gzip.decompress(raw) if raw.startswith(_GZIP_MAGIC) else raw
        return content.decode("utf-8-sig")
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise FormatError(f"{path} is truncated or corrupt: {error}. Export it again.") from error
    except UnicodeDecodeError as error:
        raise FormatError(
            f"{path} is not UTF-8 text (byte {error.start}); a table is exported as UTF-8 CSV."
        ) from error
    except OSError as error:
        raise FormatError(f"Cannot read {path}: {error.strerror or error}.") from error
