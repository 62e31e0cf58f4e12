"""What the doctor says: the network's sums, every layer's finding, and the changes that would help most."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ..core.protocols import LatencyKind
from ..core.shapes import LayerShape
from .binding import BOUNDS, Binding, Bound
from .changes import Change
from .conditions import Conditions
from .payoff import PAYS, Payoff
from .places import Place


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerFinding:
    """One layer at its present widths, calls included. `wasted_us` is its share of what its groups waste.

    `place` is the step of the one group that its output width comes from; None for a constant, a concatenation, or a
    group without a known staircase. `dense_us` is None where there is no dense network to compare with.
    """

    name: str
    shape: LayerShape
    calls: int
    dense_us: float | None
    latency_us: float
    kind: LatencyKind
    binding: Binding
    wasted_us: float
    place: Place | None


@dataclass(frozen=True, kw_only=True)
class Diagnosis(Conditions):
    """Why is this network not faster? Latencies are sums over layers, in microseconds, from one source named `origin`.

    `expected_us` is the dense latency times the share of multiply-adds that is left, and `gap_us` what the network
    takes beyond it. `together_us` is the network with all `changes` made. `wasted_us` adds up the groups' steps, each with
    the others as they are: no promise that all of it can be saved at once, which is what `together_us` is for.
    `unplaced` names groups whose staircase is unknown, with the reason.
    """

    widths: Mapping[str, int]
    dense_us: float | None
    latency_us: float
    macs_share: float
    layers: tuple[LayerFinding, ...]
    places: Mapping[str, Place]
    changes: tuple[Change, ...]
    together_us: float
    payoff: Payoff
    unplaced: Mapping[str, str]
    warnings: tuple[str, ...] = ()

    @property
    def expected_us(self) -> float | None:
        return None if self.dense_us is None else self.dense_us * self.macs_share

    @property
    def gap_us(self) -> float | None:
        """Negative where pruning bought more time than multiply-adds."""
        return None if self.expected_us is None else self.latency_us - self.expected_us

    @property
    def wasted_us(self) -> float:
        return math.fsum(place.wasted_us for place in self.places.values())

    @cached_property
    def us_by_bound(self) -> dict[Bound, float]:
        """Where the time goes, by what binds the layers; every bound that occurs, in the order of `BOUNDS`."""
        total = {b: math.fsum(la.latency_us for la in self.layers if la.binding.bound == b) for b in BOUNDS}
        return {bound: us for bound, us in total.items() if us}

    @property
    def off_edge(self) -> int:
        """Groups whose width leaves a part of its step unused."""
        return sum(not place.on_edge for place in self.places.values())

    @property
    def verdict(self) -> tuple[str, ...]:
        """The finding in plain words, most important first."""
        return tuple(
            sentence for sentence in (self._speed(), self._waste(), self._bounds(), str(self.payoff)) if sentence
        )

    def _speed(self) -> str:
        about = "an estimated " if self.kind == "modelled" else ""
        if self.dense_us is None or self.expected_us is None or self.gap_us is None:
            return f"{self.model} takes {about}{self.latency_us:,.0f} µs."
        ratio, hoped = self.dense_us / self.latency_us, 1 / self.macs_share
        if self.macs_share >= 1:
            return f"Nothing is pruned: {self.model} takes {about}{self.latency_us:,.0f} µs, as dense {self.dense_us:,.0f} µs."
        speed = (
            f"{about}{ratio:.2f} times as fast as the dense network ({self.dense_us:,.0f} to {self.latency_us:,.0f} µs)"
        )
        if self.latency_us > self.dense_us:
            share = self.latency_us / self.dense_us - 1
            speed = (
                f"{about}{share:.1%} slower than the dense network ({self.dense_us:,.0f} to {self.latency_us:,.0f} µs)"
            )
        if self.gap_us <= PAYS * self.latency_us:
            return f"The pruned network is {speed}, about what its multiply-adds promise ({hoped:.2f} times)."
        return (
            f"The pruned network is {speed}; its multiply-adds promise {hoped:.2f} times, so {self.gap_us:,.0f} µs went "
            "missing."
        )

    def _waste(self) -> str:
        if not self.places:
            return ""
        if not self.off_edge:
            return "Every group stands on the edge of its step: no width is wasted."
        return (
            f"{self.off_edge} of {len(self.places)} groups stop short of their step's edge; {self.wasted_us:,.0f} µs "
            f"({self.wasted_us / self.latency_us:.1%}) are paid for channels that are not there."
        )

    def _bounds(self) -> str:
        shares = {bound: us / self.latency_us for bound, us in self.us_by_bound.items()}
        if "unknown" in shares and len(shares) == 1:
            return "What binds the layers is unknown: these latencies do not show it, and the wave model of a GPU was not asked."
        what = {
            "launch": "launching kernels, which no width shortens",
            "memory": "moving bytes",
            "wave": "waves or tiles that are partly empty",
            "compute": "arithmetic that fills the device",
            "unknown": "reasons that are unknown",
        }
        ranked = sorted(shares, key=lambda bound: -shares[bound])
        return "The time is bound by " + "; ".join(f"{what[bound]}: {shares[bound]:.0%}" for bound in ranked) + "."

    def summary(self) -> str:
        """A few lines for people."""
        lines = [*self.verdict, "", f"The {_number(len(self.changes))} that would help most:" if self.changes else ""]
        lines += [f"  {place}. {change}" for place, change in enumerate(self.changes, start=1)]
        if len(self.changes) > 1:
            lines.append(f"  All together: {self.latency_us:,.0f} to {self.together_us:,.0f} µs.")
        if not self.changes:
            lines.append("No single change of width would help.")
        lines += [
            "",
            self.conditions,
        ]
        lines += [f"warning: {warning}" for warning in self.warnings]
        return "\n".join(line for i, line in enumerate(lines) if line or lines[i - 1])

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON values."""
        return {
            **self.conditions_body(),
            "widths": dict(self.widths),
            "dense_us": self.dense_us,
            "latency_us": self.latency_us,
            "macs_share": self.macs_share,
            "expected_us": self.expected_us,
            "gap_us": self.gap_us,
            "wasted_us": self.wasted_us,
            "us_by_bound": dict(self.us_by_bound),
            "verdict": list(self.verdict),
            "changes": [
                {"group": c.group, "width": c.width, "to": c.to, "saved_us": c.saved_us, "share": c.share, "faster": c.faster, "words": str(c)}
                for c in self.changes
            ],
            "together_us": self.together_us,
            "payoff": {
                "batch": self.payoff.batch, "latency_origin": self.payoff.origin, "latency_kind": self.payoff.kind, "words": str(self.payoff),
                "tried": [{"batch": t.batch, "dense_us": t.dense_us, "pruned_us": t.pruned_us} for t in self.payoff.times],
            },
            "layers": [_layer_body(layer) for layer in self.layers],
            "groups": {group: _place_body(place) for group, place in self.places.items()},
            "unplaced": dict(self.unplaced),
            "warnings": list(self.warnings),
        }  # fmt: skip


def _number(count: int) -> str:
    return {1: "one change", 2: "two changes", 3: "three changes"}.get(count, f"{count} changes")


def _layer_body(layer: LayerFinding) -> dict[str, Any]:
    return {
        "name": layer.name,
        "shape": str(layer.shape),
        "calls": layer.calls,
        "dense_us": layer.dense_us,
        "latency_us": layer.latency_us,
        "kind": layer.kind,
        "bound": layer.binding.bound,
        "evidence": layer.binding.evidence,
        "evidence_kind": layer.binding.kind,
        "wasted_us": layer.wasted_us,
        "group": layer.place.group if layer.place else None,
    }


def _place_body(place: Place) -> dict[str, Any]:
    return {
        "width": place.width,
        "original": place.original,
        "edge_below": place.edge_below,
        "edge_above": place.edge_above,
        "headroom": place.headroom,
        "latency_us": place.latency_us,
        "below_us": place.below_us,
        "above_us": place.above_us,
        "fill_us": place.fill_us,
        "wasted_us": place.wasted_us,
        "edges_seen_at": place.seen_at,
    }
