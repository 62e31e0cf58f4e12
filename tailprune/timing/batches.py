"""Which shapes are timed beside each other, where they are too many to be alive at once?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

from ..core.shapes import LayerShape
from ..tables import are_on_one_line


def batches(shapes: Sequence[LayerShape], most: int) -> Iterator[list[LayerShape]]:
    """These shapes in order, at most `most` to a batch, none of which ends inside a line that fits into one.

    A machine is faster or slower from one batch to the next, for all shapes of it alike; between two widths of one layer that
    would look like a step. Neighbours that differ in one channel count are on one line.

    >>> shape = LayerShape(op="linear", batch=1, in_channels=8, out_channels=8)
    >>> lines = [shape.with_channels(in_channels=i, out_channels=o) for i in (8, 16) for o in (8, 16, 24)]
    >>> [len(batch) for batch in batches(lines, 5)]
    [3, 3]
    """
    batch: list[LayerShape] = []
    for line in _lines(shapes):
        if batch and len(batch) + len(line) > most:
            yield batch
            batch = []
        while len(batch) + len(line) > most:
            yield line[:most]
            line = line[most:]
        batch += line
    if batch:
        yield batch


def _lines(shapes: Sequence[LayerShape]) -> Iterator[list[LayerShape]]:
    line = list(shapes[:1])
    for before, shape in pairwise(shapes):
        if not are_on_one_line(before, shape):
            yield line
            line = []
        line.append(shape)
    if line:
        yield line
