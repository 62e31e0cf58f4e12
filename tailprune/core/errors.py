"""Everything tailprune raises on purpose. One sentence each: what, got, allowed, next."""

from __future__ import annotations


class TailpruneError(Exception):
    """Base of every error a user can cause or the device can answer with."""


class InvalidShape(TailpruneError, ValueError):
    """A value cannot describe a layer, a device, a group or a plan."""


class TraceError(TailpruneError):
    """The model's channels could not be followed from producer to consumer."""


class MissingLatency(TailpruneError, LookupError):
    """A latency source does not know a shape, and does not guess. `shapes` lists what it lacks."""

    def __init__(self, message: str, shapes: tuple = ()) -> None:
        super().__init__(message)
        self.shapes = shapes


class TableError(TailpruneError):
    """A latency table cannot be read, written or trusted."""


class EnvironmentMismatch(TableError):
    """A table was measured in another environment than the one asked for."""


class FormatError(TableError):
    """A file is corrupt, truncated, foreign, or of a version this tailprune cannot read."""


class UnstableMeasurement(TailpruneError):
    """The device did not settle, and the caller asked for settled numbers only."""


class NoPlan(TailpruneError):
    """No choice of widths satisfies the budget. The message states the floor."""


class PlanMismatch(TailpruneError):
    """A plan was made for another model, or for other widths of this one."""


class MissingDependency(TailpruneError, ImportError):
    """An optional library is needed for what was asked."""
