import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailprune.core.environment import Environment
from tailprune.core.errors import InvalidShape, MissingLatency
from tailprune.core.protocols import FirstOf, LatencySource
from tailprune.core.sample import LatencySample, usual_time
from tailprune.core.shapes import LayerShape

SHAPE = LayerShape(op="linear", batch=1, in_channels=2, out_channels=3)
times = st.lists(st.floats(1e-3, 1e6), min_size=1, max_size=30)


@given(times, st.floats(0, 1))
def test_statistics_agree_with_numpy(values, q):
    sample = LatencySample(shape=SHAPE, times_us=tuple(values))
    calm = np.array(values)[np.array(values) <= (1.08 * usual_time(values) if len(values) >= 6 else np.inf)]
    assert sample.calm_us == pytest.approx(calm)
    assert sample.median_us == pytest.approx(np.median(calm))
    assert sample.quantile_us(q) == pytest.approx(np.quantile(values, q))
    assert sample.mad_us == pytest.approx(np.median(np.abs(calm - np.median(calm))), abs=1e-9)


@given(times, st.floats(1.1, 9.0), st.integers(0, 200))
def test_what_others_prolong_leaves_the_latency_where_it_was(values, factor, seed):
    """Times that vary by 3 %; of 20 up to twelve are then prolonged."""
    random = np.random.default_rng(seed)
    alone = values[0] * (1 + 0.03 * random.random(20))
    shared = np.where(np.arange(20) < random.integers(13), factor, 1.0) * alone
    quiet, busy = (LatencySample(shape=SHAPE, times_us=tuple(us)) for us in (alone, shared))
    assert busy.median_us == pytest.approx(quiet.median_us, rel=0.03)


@given(times)
def test_the_usual_time_is_calm_and_the_scale_does_not_matter(values):
    sample = LatencySample(shape=SHAPE, times_us=tuple(values))
    assert min(values) in sample.calm_us
    assert len(sample.calm_us) >= min(2, len(values))
    assert len(LatencySample(shape=SHAPE, times_us=tuple(4 * us for us in values)).calm_us) == len(sample.calm_us)


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
