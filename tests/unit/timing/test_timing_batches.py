"""Which shapes are timed beside each other."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tailprune.core.shapes import LayerShape
from tailprune.timing.batches import batches

LAYER = LayerShape(op="conv", batch=1, in_channels=8, out_channels=8, in_hw=(8, 8))


def line(in_channels: int, count: int) -> list[LayerShape]:
    return [LAYER.with_channels(in_channels=in_channels, out_channels=width) for width in range(1, count + 1)]


@given(st.lists(st.integers(2, 12), max_size=8), st.integers(1, 10))
def test_batches_are_the_shapes_in_order_and_cut_only_lines_that_fit_into_none(lengths: list[int], most: int) -> None:
    shapes = [shape for index, length in enumerate(lengths) for shape in line(100 + index, length)]
    found = list(batches(shapes, most))
    assert [shape for batch in found for shape in batch] == shapes
    assert all(0 < len(batch) <= most for batch in found)
    for index, length in enumerate(lengths):
        holding = [batch for batch in found if any(shape.in_channels == 100 + index for shape in batch)]
        assert len(holding) == 1 or length > most


def test_few_shapes_are_one_batch() -> None:
    assert list(batches(line(8, 5) + line(16, 5), 10)) == [line(8, 5) + line(16, 5)]
    assert list(batches([], 10)) == []


def test_a_line_along_in_and_a_depthwise_one_stay_together_too() -> None:
    along_in = [LAYER.with_channels(in_channels=width) for width in (16, 24, 32)]
    depthwise = [
        LayerShape(op="conv", batch=1, in_channels=c, out_channels=c, conv_groups=c, in_hw=(8, 8)) for c in (16, 24, 32)
    ]
    assert list(batches([*along_in, *depthwise], 4)) == [along_in, depthwise]
