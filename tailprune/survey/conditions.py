"""What latencies of a survey or a diagnosis hold for: said in one line, and in JSON."""

from __future__ import annotations

from typing import Any, Protocol

from ..core.protocols import LatencyKind


class Conditioned(Protocol):
    """A finding about one network at one batch, dtype and layout, from one latency source."""

    @property
    def model(self) -> str: ...
    @property
    def batch(self) -> int: ...
    @property
    def dtype(self) -> str: ...
    @property
    def memory_format(self) -> str: ...
    @property
    def origin(self) -> str: ...
    @property
    def kind(self) -> LatencyKind: ...


def conditions_line(found: Conditioned) -> str:
    return f"{found.origin}; batch {found.batch}, {found.dtype}, {found.memory_format}; a sum of layers ({found.kind})"


def conditions_body(found: Conditioned) -> dict[str, Any]:
    return {
        "model": found.model,
        "batch": found.batch,
        "dtype": found.dtype,
        "memory_format": found.memory_format,
        "latency_origin": found.origin,
        "latency_kind": found.kind,
    }
