"""The seams: what packages of one layer know of each other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Literal, Protocol, runtime_checkable

from .environment import Environment
from .errors import MissingLatency
from .sample import LatencySample
from .shapes import LayerShape

#: How a latency is known. `held`: inside a plateau whose two ends were measured and confirmed.
LatencyKind = Literal["measured", "held", "modelled"]


@runtime_checkable
class LatencySource(Protocol):
    """Knows what a shape costs, or says that it does not."""

    @property
    def origin(self) -> str:
        """One line for people: what these latencies hold for, and how they came about."""
        ...

    def latency_us(self, shape: LayerShape) -> float:
        """Microseconds of one call; MissingLatency where unknown, never a guess."""
        ...

    def kind(self, shape: LayerShape) -> LatencyKind: ...


@runtime_checkable
class LayerTimer(Protocol):
    """Times deployed blocks on a device, real or simulated."""

    @property
    def environment(self) -> Environment: ...

    def time(self, shape: LayerShape) -> LatencySample: ...

    def time_many(self, shapes: Sequence[LayerShape]) -> Iterator[LatencySample]:
        """One sample per distinct shape, interleaved against drift, yielded as each one settles (any order)."""
        ...


class Notebook(Protocol):
    """Keeps what is measured while it is measured: a table, for example."""

    def visits(self, shape: LayerShape) -> Sequence[LatencySample]:
        """The finished visits of a shape."""
        ...

    def readings(self, shape: LayerShape) -> Sequence[float]:
        """Microseconds read in a visit that was begun and not finished."""
        ...

    def note(self, shape: LayerShape, us: float) -> None:
        """Keep one more reading of a visit that goes on; kill -9 cannot take it back once this returned."""
        ...


@runtime_checkable
class ResumableTimer(LayerTimer, Protocol):
    """A timer that goes on where one before it was stopped, killed even."""

    def resume_many(self, shapes: Sequence[LayerShape], notebook: Notebook) -> Iterator[LatencySample]:
        """As `time_many`; every reading is noted as it is taken, and visits that were begun are finished."""
        ...


@runtime_checkable
class WidthProposer(Protocol):
    """Expects steps before anything was measured. What it says costs or saves measurements and never becomes a latency."""

    def edge_widths(
        self, calls_at: Callable[[int], Iterable[tuple[LayerShape, int]]], widths: Sequence[int]
    ) -> Sequence[int]:
        """After which of these ascending widths is a step likely? `calls_at(width)` are the shapes there, with their calls."""
        ...

    def expected_us(
        self, calls_at: Callable[[int], Iterable[tuple[LayerShape, int]]], widths: Sequence[int]
    ) -> Sequence[float]:
        """What these widths may cost, up to a common factor; nothing where one of them is unknown."""
        ...


class FirstOf:
    """Asks several sources in turn: a table, then the model. What answers is what `kind` reports."""

    def __init__(self, *sources: LatencySource) -> None:
        self.sources = sources

    @property
    def origin(self) -> str:
        return "; else ".join(source.origin for source in self.sources)

    def _answering(self, shape: LayerShape) -> tuple[LatencySource, float]:
        for source in self.sources:
            try:
                return source, source.latency_us(shape)
            except MissingLatency:
                continue
        raise MissingLatency(f"No source knows {shape}; measure it with `tailprune measure`.", (shape,))

    def latency_us(self, shape: LayerShape) -> float:
        return self._answering(shape)[1]

    def kind(self, shape: LayerShape) -> LatencyKind:
        return self._answering(shape)[0].kind(shape)
