import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailprune.core.environment import Environment
from tailprune.core.errors import InvalidShape, MissingLatency
from tailprune.core.protocols import FirstOf, LatencySource
from tailprune.core.sample import LatencySample
from tailprune.core.shapes import LayerShape

SHAPE = LayerShape(op="linear", batch=1, in_channels=2, out_channels=3)
times = st.lists(st.floats(1e-3, 1e6), min_size=1, max_size=30)


@given(times, st.floats(0, 1))
def test_statistics_agree_with_numpy(values, q):
    sample = LatencySample(shape=SHAPE, times_us=tuple(values))
    assert sample.median_us == pytest.approx(np.median(values))
    assert sample.quantile_us(q) == pytest.approx(np.quantile(values, q))
    assert sample.mad_us == pytest.approx(np.median(np.abs(np.array(values) - np.median(values))), abs=1e-9)


@pytest.mark.parametrize("bad", [(), (1.0, float("nan")), (0.0,), (-1.0,)])
def test_times_must_be_times(bad):
    with pytest.raises(InvalidShape, match="A sample of linear"):
        LatencySample(shape=SHAPE, times_us=bad)


def test_a_failure_is_kept_as_a_sample():
    assert not LatencySample(shape=SHAPE, times_us=(), flags=("out_of_memory",)).usable


def test_environment_differences_are_sorted_by_what_they_break():
    here = Environment(device="A", torch="2.6")
    there = dataclasses.replace(here, device="B", threads=2, torch="2.7")
    refused, warned = here.differences(there)
    assert refused == {"device": ("A", "B"), "threads": (1, 2)}
    assert warned == {"torch": ("2.6", "2.7")}


class Known:
    def __init__(self, name, known, kind):
        self.origin, self.known, self._kind = name, known, kind

    def latency_us(self, shape):
        if shape not in self.known:
            raise MissingLatency(f"{self.origin} lacks {shape}", (shape,))
        return self.known[shape]

    def kind(self, shape):
        return self._kind


def test_sources_compose_and_say_who_answered():
    other = SHAPE.with_channels(out_channels=4)
    source = FirstOf(Known("table", {SHAPE: 1.0}, "measured"), Known("model", {SHAPE: 5.0, other: 2.0}, "modelled"))
    assert isinstance(source, LatencySource)
    assert [(source.latency_us(s), source.kind(s)) for s in (SHAPE, other)] == [(1.0, "measured"), (2.0, "modelled")]
    unknown = SHAPE.with_channels(out_channels=9)
    with pytest.raises(MissingLatency) as error:
        source.latency_us(unknown)
    assert error.value.shapes == (unknown,)
