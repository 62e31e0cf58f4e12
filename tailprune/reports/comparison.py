"""Who is faster, by how much, and does that exceed the noise? Measured results side by side, rivals included."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from ..core.errors import InvalidShape
from ..core.protocols import LatencyKind
from .notation import change, microseconds, percent

Role = Literal["dense", "host", "rival", "ours"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparisonRow:
    """One method's network. Latencies in microseconds for one forward of the batch; accuracies and their noise as shares.

    `groups_changed` counts channel groups whose width is not the host's. `spread_us` is the half-width within which
    repeated runs of this network lay; `accuracy_noise` one standard error. What was not determined is None.
    """

    method: str
    role: Role = "rival"
    groups_changed: int = 0
    groups_total: int = 0
    macs: int | None = None
    params: int | None = None
    predicted_us: float | None = None
    latency_kind: LatencyKind = "measured"  # how the layers behind `predicted_us` are known
    measured_us: float | None = None
    spread_us: float | None = None
    importance: float | None = None  # kept, as a share of the dense network's
    accuracy_before: float | None = None
    accuracy_after: float | None = None
    accuracy_noise: float | None = None
    note: str = ""

    def __post_init__(self) -> None:
        if self.role not in ("dense", "host", "rival", "ours"):
            raise InvalidShape(f"Unknown role {self.role!r} of {self.method}; allowed: dense, host, rival, ours.")
        for name in ("predicted_us", "measured_us"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise InvalidShape(f"{name} of {self.method} must be positive and finite, got {value!r}.")

    @property
    def prediction_error(self) -> float | None:
        """(predicted - measured) / measured."""
        if self.predicted_us is None or self.measured_us is None:
            return None
        return self.predicted_us / self.measured_us - 1


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Rows in the order to show; exactly one of them is the host.

    A difference counts when it exceeds both spreads together (times) or two standard errors of it (accuracies).
    Only measured latencies are ever compared; without them there is no verdict.
    """

    rows: tuple[ComparisonRow, ...]

    def __post_init__(self) -> None:
        hosts = [row.method for row in self.rows if row.role == "host"]
        if len(hosts) != 1:
            raise InvalidShape(f"A comparison needs exactly one row with role host, got {len(hosts)}.")
        if len({row.method for row in self.rows}) != len(self.rows):
            raise InvalidShape("Every row of a comparison needs a method name of its own.")

    @cached_property
    def host(self) -> ComparisonRow:
        return next(row for row in self.rows if row.role == "host")

    @cached_property
    def best(self) -> ComparisonRow | None:
        """Our fastest measured network."""
        ours = [row for row in self.rows if row.role == "ours" and row.measured_us is not None]
        return min(ours, key=lambda row: row.measured_us or math.inf, default=None)

    def against_host(self, row: ComparisonRow) -> float | None:
        """Measured latency relative to the host's, minus one; negative is faster."""
        if row.measured_us is None or self.host.measured_us is None:
            return None
        return row.measured_us / self.host.measured_us - 1

    def faster(self, row: ComparisonRow, other: ComparisonRow) -> bool | None:
        """True or False where the difference exceeds the spreads; None where it does not, or was not measured."""
        if row.measured_us is None or other.measured_us is None:
            return None
        difference = other.measured_us - row.measured_us
        return None if abs(difference) <= (row.spread_us or 0) + (other.spread_us or 0) else difference > 0

    def as_accurate(self, row: ComparisonRow, other: ComparisonRow) -> bool | None:
        """Whether `row` is no less accurate than `other`, after fine-tuning, within two standard errors."""
        if row.accuracy_after is None or other.accuracy_after is None:
            return None
        noise = math.hypot(row.accuracy_noise or 0, other.accuracy_noise or 0)
        return row.accuracy_after >= other.accuracy_after - 2 * noise

    @cached_property
    def unbeaten(self) -> tuple[ComparisonRow, ...]:
        """Host and rivals that our fastest network does not beat: not slower than it, and not known to be less accurate."""
        if self.best is None:
            return ()
        return tuple(
            row
            for row in self.rows
            if row.role in ("host", "rival")
            and row.measured_us is not None
            and not self.faster(self.best, row)
            and self.as_accurate(row, self.best) is not False
        )

    @property
    def sentence(self) -> str:
        """The result in one honest sentence."""
        best, host = self.best, self.host
        if best is None or host.measured_us is None:
            return "Nothing was measured on the device yet, so there is no result to claim."
        times = f"{microseconds(best.measured_us, spread=best.spread_us)} against {microseconds(host.measured_us, spread=host.spread_us)}"
        gain = change(self.against_host(best))
        if self.faster(best, host) is None:
            said = f"{best.method} is not measurably faster than {host.method} here: {times}"
        elif self.faster(best, host):
            said = f"{best.method} runs {gain.lstrip('−')} below {host.method}: {times}, measured"
        else:
            said = f"{best.method} is slower than {host.method} here, by {gain.lstrip('+')}: {times}, measured"
        if best.accuracy_after is not None and host.accuracy_after is not None:
            verdict = (
                "within the noise"
                if self.as_accurate(best, host) and self.as_accurate(host, best)
                else "beyond the noise"
            )
            said += f"; accuracy {percent(best.accuracy_after)} against {percent(host.accuracy_after)}, a difference {verdict}"
        return said + "."

    @property
    def caveats(self) -> tuple[str, ...]:
        """One sentence for each rival we do not beat, and one if our network is less accurate than the host."""
        if self.best is None:
            return ()
        best = self.best
        said = [
            f"We do not win against {row.method}: {microseconds(row.measured_us, spread=row.spread_us)} there, "
            f"{microseconds(best.measured_us, spread=best.spread_us)} with {best.method}."
            for row in self.unbeaten
            if row.role == "rival"
        ]
        if self.as_accurate(best, self.host) is False:
            said.append(f"{best.method} is less accurate than {self.host.method}, beyond the noise of the test set.")
        return tuple(said)


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepPoint:
    """One method at one pruning ratio of the host: whole-network latency as measured, with its spread."""

    ratio: float
    method: str
    measured_us: float
    spread_us: float = 0.0
    role: Role = "rival"


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerTime:
    """Where the time goes: one layer's latency in the host's and in our network, both from one latency source."""

    name: str
    host_us: float
    ours_us: float
