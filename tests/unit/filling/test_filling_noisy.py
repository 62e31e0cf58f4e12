"""A shape that met a bad time is timed again, later: by whatever asks for shapes, a few times at most."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import pytest

from tailprune.core.environment import Environment
from tailprune.core.graph import ChannelGroup, Layer, ModelGraph, WidthExpr
from tailprune.core.sample import LatencySample
from tailprune.core.shapes import LayerShape
from tailprune.filling import fill_table, measure_missing
from tailprune.filling.lacking import MOST_VISITS, is_noisy
from tailprune.tables import LatencyTable

HERE = Environment(device="made up")
FACTORS = (0.98, 0.99, 1.0, 1.01, 1.02)
SCATTER = (0.9, 0.95, 1.0, 1.2, 1.3)


def conv(out_channels: int) -> LayerShape:
    return LayerShape(op="conv", batch=1, in_channels=8, out_channels=out_channels, in_hw=(4, 4))


class BadTimes:
    """10 us a channel. The first `bad` visits of the shapes in `hit` take up to 30 % longer, and scatter."""

    environment = HERE

    def __init__(self, hit: Sequence[LayerShape], bad: int = 1, *, settles: bool = False) -> None:
        self.hit, self.bad, self.settles, self.visits = hit, bad, settles, Counter[LayerShape]()

    def time(self, shape: LayerShape) -> LatencySample:
        return next(self.time_many([shape]))

    def time_many(self, shapes: Sequence[LayerShape]) -> Iterator[LatencySample]:
        for shape in shapes:
            self.visits[shape] += 1
            bad = shape in self.hit and self.visits[shape] <= self.bad
            us = 10.0 * shape.out_channels * (1.15 if bad else 1.0)
            times_us = tuple(us * factor for factor in (SCATTER if bad else FACTORS))
            flags = ("unstable", "noisy") if bad and not self.settles else ("unstable",)
            yield LatencySample(shape=shape, times_us=times_us, flags=flags)


@pytest.mark.parametrize(("bad", "visits"), [(0, 1), (1, 2), (2, 3), (MOST_VISITS, MOST_VISITS), (99, MOST_VISITS)])
def test_a_noisy_shape_is_timed_until_one_visit_is_sure(bad: int, visits: int) -> None:
    table, timer, shapes = LatencyTable.in_memory(HERE), BadTimes([conv(16)], bad), [conv(8), conv(16)]
    assert measure_missing(table, shapes, timer) == 2, "shapes, not visits"
    assert timer.visits == {conv(8): 1, conv(16): visits}
    assert is_noisy(LatencyTable.in_memory(HERE), conv(16)) is False
    assert table.latency_us(conv(16)) == pytest.approx(160.0 if bad < MOST_VISITS else 184.0)
    assert measure_missing(table, shapes, timer) == 0


def test_a_shape_that_is_not_flagged_noisy_is_left_alone_however_it_scatters() -> None:
    table, timer = LatencyTable.in_memory(HERE), BadTimes([conv(16)], 99, settles=True)
    measure_missing(table, [conv(16)], timer)
    assert timer.visits == {conv(16): 1}


def test_a_bad_time_hides_no_step_from_a_filling() -> None:
    """A straight line in which one width met a bad time, twice: no edge there in the end, and the visits are counted as timed again."""
    width = WidthExpr(terms=(("line", 1),))
    layer = Layer(name="line", shape=conv(16), in_expr=WidthExpr(constant=8), out_expr=width)
    graph = ModelGraph(model="line", layers=(layer,), input_shape=(1, 8, 4, 4),
                       groups=(ChannelGroup(id="line", width=16, granule=1, min_width=1),))  # fmt: skip
    table, timer = LatencyTable.in_memory(HERE), BadTimes([conv(9)], 2)
    report = fill_table(table, graph, timer)
    assert (report.timed, timer.visits[conv(9)]) == (16, 3)
    assert report.retimed >= 2
    assert table.latency_us(conv(9)) == pytest.approx(90.0)
