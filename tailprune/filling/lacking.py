"""Decide over a table that may lack something: measure what the decision asks for, and decide again."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from ..core.errors import MissingLatency
from ..core.protocols import LayerTimer
from ..tables import LatencyTable
from .fill import Progress, measure_missing

Decision = TypeVar("Decision")


def measure_while(
    table: LatencyTable, timer: LayerTimer, decide: Callable[[], Decision], *, progress: Progress | None = None
) -> Decision:
    """What does `decide` answer once the table knows every shape it asks for?

    `decide` reads the table and raises MissingLatency with the shapes it lacks; they are measured and it is called
    again. Raises that MissingLatency where nothing can be measured any more: the device refuses those shapes.

    >>> from tailprune import LatencyTable, LayerShape, SimulatedTimer, load_device
    >>> timer = SimulatedTimer(load_device("h200"))
    >>> table, shape = LatencyTable.in_memory(timer.environment), LayerShape(op="linear", batch=8, in_channels=64, out_channels=64)
    >>> measure_while(table, timer, lambda: table.latency_us(shape) > 0)
    True
    """
    while True:
        try:
            return decide()
        except MissingLatency as error:
            if not measure_missing(table, error.shapes, timer, progress=progress):
                raise
