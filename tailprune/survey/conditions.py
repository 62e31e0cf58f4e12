"""What latencies of a survey or a diagnosis hold for: said in one line, and in JSON."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..core.protocols import LatencyKind


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """One network at one batch, dtype and layout; latencies are sums over its layers from one source, named `origin`."""

    model: str
    batch: int
    dtype: str
    memory_format: str
    origin: str
    kind: LatencyKind

    @property
    def conditions(self) -> str:
        return f"{self.origin}; batch {self.batch}, {self.dtype}, {self.memory_format}; a sum of layers ({self.kind})"

    def conditions_body(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "batch": self.batch,
            "dtype": self.dtype,
            "memory_format": self.memory_format,
            "latency_origin": self.origin,
            "latency_kind": self.kind,
        }
