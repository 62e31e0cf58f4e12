"""Measure what a table lacks: these shapes, or all that a decision over the table asks for."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from ..core.errors import EnvironmentMismatch, MissingLatency
from ..core.protocols import LayerTimer, ResumableTimer
from ..core.shapes import LayerShape
from ..tables import LatencyTable

#: Called as progress(done, estimate of the total, what is being timed).
Progress = Callable[[int, int, str], None]
Decision = TypeVar("Decision")


def measure_missing(
    table: LatencyTable, shapes: Iterable[LayerShape], timer: LayerTimer, *, progress: Progress | None = None
) -> int:
    """Time the shapes that the table neither measured nor knows to fail, each once; returns how many.

    Every sample is in the table before the next is taken, every reading of a `ResumableTimer` too: a kill loses the one in
    flight and no more. A held shape is measured: a plan is made of measurements. Refuses a timer of another environment
    than the table's.
    """
    check_environment(table, timer)
    lacking = [shape for shape in dict.fromkeys(shapes) if shape not in table]
    return time_shapes(table, lacking, timer, lambda done, shape: progress and progress(done, len(lacking), str(shape)))


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


def time_shapes(
    table: LatencyTable,
    shapes: Sequence[LayerShape],
    timer: LayerTimer,
    report: Callable[[int, LayerShape], object],
    *,
    afresh: bool = False,
) -> int:
    """Time these shapes whatever the table knows; returns how many samples came, flagged `afresh` where they are."""
    if not shapes:
        return 0
    taken = timer.resume_many(shapes, table) if isinstance(timer, ResumableTimer) else timer.time_many(shapes)
    done = 0
    for done, sample in enumerate(taken, 1):
        if afresh and sample.usable:
            sample = dataclasses.replace(sample, flags=(*sample.flags, "afresh"))
        table.add(sample)
        report(done, sample.shape)
    return done


def check_environment(table: LatencyTable, timer: LayerTimer) -> None:
    """EnvironmentMismatch where the timer's latencies do not belong into this table."""
    refused, _ = table.environment.differences(timer.environment)
    if refused:
        fields = "; ".join(
            f"{name} is {mine!r} in the table and {theirs!r} here" for name, (mine, theirs) in refused.items()
        )
        raise EnvironmentMismatch(f"This timer cannot fill that table: {fields}. Open another table for it.")
