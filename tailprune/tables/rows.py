"""How a shape, a sample and an environment are written as flat rows of numbers and text, in SQLite and in CSV alike."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from operator import attrgetter
from typing import Any

from ..core.environment import Environment
from ..core.errors import FormatError, InvalidShape
from ..core.sample import LatencySample
from ..core.shapes import LayerShape

#: The key of a table, in the order of its columns.
SHAPE_COLUMNS = (
    "op", "batch", "in_channels", "out_channels", "in_hw", "kernel_hw", "stride_hw", "padding_hw", "dilation_hw",
    "conv_groups", "dtype", "memory_format", "epilogue",
)  # fmt: skip
INTEGER_COLUMNS = frozenset(("batch", "in_channels", "out_channels", "conv_groups"))
#: What one visit adds to its shape.
SAMPLE_COLUMNS = ("times_us", "warmups", "utc", "flags", "note")

_shape_fields = attrgetter(*SHAPE_COLUMNS)


def shape_row(shape: LayerShape) -> tuple[int | str, ...]:
    """Pairs as `14x14` (rows x columns), the epilogue as `bias+relu`."""
    return tuple(_as_cell(name, value) for name, value in zip(SHAPE_COLUMNS, _shape_fields(shape), strict=True))


def _as_cell(name: str, value: int | str | tuple[int, int] | tuple[str, ...]) -> int | str:
    if name == "epilogue" and isinstance(value, tuple):
        return "+".join(map(str, value))
    return f"{value[0]}x{value[1]}" if isinstance(value, tuple) else value


def shape_from_row(row: Sequence[int | str]) -> LayerShape:
    """The inverse of `shape_row`; integers may come as text. InvalidShape where it is no shape."""
    return LayerShape(**{name: _from_cell(name, cell) for name, cell in zip(SHAPE_COLUMNS, row, strict=True)})


def _from_cell(name: str, cell: int | str) -> Any:
    text = str(cell)
    try:
        if name in INTEGER_COLUMNS:
            return int(text)
        if name.endswith("_hw"):
            rows, columns = text.split("x")
            return int(rows), int(columns)
    except ValueError:
        allowed = "an integer" if name in INTEGER_COLUMNS else "two integers such as 3x3"
        raise InvalidShape(f"A layer's {name} must be {allowed}, got {text!r}.") from None
    if name == "epilogue":
        return tuple(text.split("+")) if text else ()
    return text


def sample_row(sample: LatencySample) -> tuple[str, int, str, str, str]:
    """Times as the shortest decimals that read back to the same floats, separated by spaces."""
    times = " ".join(repr(float(time)) for time in sample.times_us)
    return times, int(sample.warmups), sample.utc, " ".join(sample.flags), _storable(sample.note)


def _storable(text: str) -> str:
    """Notes quote other programs' messages, which may hold what SQLite or CSV does not give back as it was."""
    plain = text.replace("\r\n", "\n").replace("\r", "\n").replace("\0", "\\0")
    return plain.encode("utf-8", "backslashreplace").decode("utf-8")


def sample_from_row(shape: LayerShape, row: Sequence[int | str]) -> LatencySample:
    times, warmups, utc, flags, note = map(str, row)
    try:
        times_us, warmup_count = tuple(map(float, times.split())), int(warmups)
    except ValueError:
        raise InvalidShape(
            f"A sample's times_us and warmups must be numbers, got {times[:40]!r} and {warmups!r}."
        ) from None
    return LatencySample(
        shape=shape, times_us=times_us, warmups=warmup_count, utc=utc, flags=tuple(flags.split()), note=note
    )


def environment_text(environment: Environment) -> str:
    return json.dumps(environment.as_dict(), sort_keys=True)


def environment_from(body: object, origin: str) -> Environment:
    """A field that is absent (an older file) has its default; one that is unknown (a newer file) is refused."""
    known = {field.name: field for field in fields(Environment)}
    if not isinstance(body, Mapping) or "device" not in body:
        raise FormatError(f"{origin} does not say in which environment it was measured. Measure it again.")
    for name, value in body.items():
        if name not in known:
            raise FormatError(
                f"{origin} states an environment field {name!r} that this tailprune does not know. Upgrade tailprune."
            )
        expected = str if name == "device" else type(known[name].default)
        if type(value) is not expected:
            raise FormatError(
                f"{origin} states {value!r} as the environment's {name}, which must be of type {expected.__name__}."
            )
    return Environment(**body)
