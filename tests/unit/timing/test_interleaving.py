"""Rounds over many shapes, with readings that are made up."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Iterator

import pytest

from tailprune.core.environment import Environment
from tailprune.core.sample import LatencySample
from tailprune.core.shapes import LayerShape
from tailprune.tables import LatencyTable
from tailprune.timing import StoppingRule
from tailprune.timing.clocks import ClockReading
from tailprune.timing.protocol import PATIENCE, Series, failed_sample, held_bytes, interleave
from tailprune.timing.readings import Prepared, Reading


class Device:
    """Answers with the readings it was given, and writes down what happened in which order."""

    def __init__(self, **readings: object) -> None:
        self.log: list[str] = []
        self.inside = False
        self.disturbed = [False]
        self.clocks = ClockReading()
        self.readings = readings
        self.notebook = LatencyTable.in_memory(Environment(device="made up"))

    def read_clocks(self) -> ClockReading:
        return self.clocks

    @contextlib.contextmanager
    def pinned(self) -> Iterator[None]:
        self.inside = True
        yield
        self.inside = False

    def prepare(self, shape: LayerShape) -> Prepared | LatencySample:
        name = f"w{shape.out_channels}"
        self.log.append(f"+{name}")
        script = self.readings.get(name, [100.0])
        if isinstance(script, str):
            return failed_sample(shape, "refused", script)
        turns = iter(range(10**6))

        def read() -> Reading:
            assert self.inside
            self.log.append(name)
            turn = next(turns)
            return Reading(script[turn % len(script)], self.disturbed[turn % len(self.disturbed)])

        return Prepared(read=read, warmups=2, calls=1)

    def run(self, widths: list[int], **limits: object) -> list[LatencySample]:
        def visit(series: Series) -> None:
            series.visit()

        shapes = [LayerShape(op="linear", batch=1, in_channels=8, out_channels=width) for width in widths]
        samples = []
        for sample in interleave(shapes, prepare=self.prepare, visit=visit, pinned=self.pinned, read_clocks=self.read_clocks,
                                 rule=StoppingRule(), notebook=self.notebook, **limits):  # fmt: skip
            assert not self.inside, "settings must be free while the caller has control"
            samples.append(sample)
        return samples


def test_visits_go_round_and_each_distinct_shape_answers_once() -> None:
    device = Device()
    samples = device.run([1, 2, 3, 2, 1])
    assert device.log[:9] == ["+w1", "+w2", "+w3", "w1", "w2", "w3", "w1", "w2", "w3"]
    assert sorted(s.shape.out_channels for s in samples) == [1, 2, 3]
    assert all(len(s.times_us) == 6 and s.flags == () for s in samples)


def test_a_settled_shape_makes_room_for_a_waiting_one() -> None:
    device = Device(w1=[100.0, 107.0])
    samples = device.run([1, 2, 3, 4], most_alive=2)
    assert [s.shape.out_channels for s in samples] == [2, 3, 4, 1]
    assert device.log.index("+w3") > device.log.index("w2")
    assert samples[-1].flags == ("unstable",)
    assert len(samples[-1].times_us) == 25


def test_heavy_shapes_wait_but_one_always_runs() -> None:
    device = Device()
    shape = LayerShape(op="linear", batch=1, in_channels=8, out_channels=2)
    samples = device.run([2, 3, 4], most_bytes=held_bytes(shape) - 1)
    assert len(samples) == 3
    assert device.log.count("w2") == 6
    assert device.log.index("+w3") > max(i for i, entry in enumerate(device.log) if entry == "w2")


def test_a_shape_that_cannot_be_prepared_is_recorded_and_holds_no_room() -> None:
    device = Device(w1="no such kernel")
    samples = device.run([1, 2, 3], most_alive=1)
    assert [(s.shape.out_channels, s.flags) for s in samples] == [(1, ("refused",)), (2, ()), (3, ())]
    assert samples[0].note == "no such kernel"


@pytest.mark.parametrize("bad", [math.nan, math.inf, 0.0, -3.0])
def test_times_that_are_no_times_are_left_out_and_named(bad: float) -> None:
    (sample,) = Device(w1=[100.0, bad, 100.0]).run([1])
    assert set(sample.times_us) == {100.0}
    assert sample.flags == ("noisy",)
    assert "were no positive time and are left out" in sample.note


def test_only_bad_times_are_a_refusal_not_an_endless_loop() -> None:
    (sample,) = Device(w1=[math.nan]).run([1])
    assert sample.flags == ("refused",)
    assert sample.note == "none of 25 readings was a positive time"


def test_a_throttled_round_flags_its_samples() -> None:
    device = Device()
    device.clocks = ClockReading(slowdowns=("hardware thermal",), power_capped=True)
    (sample,) = device.run([1])
    assert sample.flags == ("throttled",)
    assert sample.note == "hardware thermal, power limit binds"


@pytest.mark.parametrize(("other_mhz", "flags"), [(1980, ()), (1900, ()), (1410, ("noisy",))])
def test_a_clock_that_jumps_makes_a_sample_noisy(other_mhz: int, flags: tuple[str, ...]) -> None:
    device = Device()
    megahertz = itertools.cycle((1980, other_mhz))
    device.read_clocks = lambda: ClockReading(sm_clock_hz=next(megahertz) * 1e6)
    (sample,) = device.run([1])
    assert sample.flags == flags
    assert sample.note == ("the SM clock moved between 1,410 and 1,980 MHz" if flags else "")
    assert set(sample.times_us) == {100.0}, "flagged, and kept"


def test_clocks_are_read_behind_the_visits() -> None:
    device = Device()
    device.read_clocks = lambda: device.log.append("clocks") or ClockReading()
    device.run([1, 2])
    assert device.log[:5] == ["+w1", "+w2", "w1", "w2", "clocks"], "an idle device's clock says nothing"


def test_disturbed_readings_are_left_out_and_counted() -> None:
    device = Device(w1=[100.0, 130.0])
    device.disturbed = [False, True]
    (sample,) = device.run([1])
    assert sample.times_us == (100.0,) * 6
    assert sample.flags == ()
    assert sample.note == "the core was taken or shared during 5 of 11 readings, which are left out"


def test_where_hardly_a_reading_is_undisturbed_all_of_them_count() -> None:
    device = Device(w1=[100.0] + [130.0] * 24)
    device.disturbed = [False] + [True] * 24
    (sample,) = device.run([1])
    visits = 25 * PATIENCE
    assert sorted(sample.times_us) == [100.0] * PATIENCE + [130.0] * 24 * PATIENCE
    assert sample.flags == ("unstable", "noisy")
    assert (
        sample.note
        == f"the core was taken or shared during {24 * PATIENCE} of {visits} readings, which count all the same"
    )


def test_disturbed_readings_do_not_use_up_the_visits() -> None:
    device = Device(w1=[100.0, 105.0])
    device.disturbed = [False, False, True]
    (sample,) = device.run([1])
    assert len(sample.times_us) == 25, "as many as without the disturbed ones"
    assert sample.flags == ("unstable",)


def linear(width: int) -> LayerShape:
    return LayerShape(op="linear", batch=1, in_channels=8, out_channels=width)


class Killed(Exception):
    pass


@pytest.mark.parametrize("after", range(1, 18))
def test_a_run_that_was_stopped_loses_only_the_reading_in_flight(after: int) -> None:
    device = Device(w1=[100.0, 101.0], w2=[50.0], w3=[math.nan, 30.0])
    note, taken = device.notebook.note, []

    def note_until(shape: LayerShape, us: float) -> None:
        if len(taken) == after:
            raise Killed
        note(shape, us)
        taken.append((shape.out_channels, us))

    device.notebook.note = note_until  # type: ignore[method-assign]
    with contextlib.suppress(Killed):
        device.run([1, 2, 3])
    assert len(taken) == after
    kept = {width: device.notebook.readings(linear(width)) for width in (1, 2, 3)}
    assert kept == {width: tuple(us for w, us in taken if w == width) for width in (1, 2, 3)}

    device.notebook.note = note  # type: ignore[method-assign]
    device.inside = False
    device.log.clear()
    for sample in device.run([1, 2, 3]):
        begun = kept[sample.shape.out_channels]
        assert sample.times_us[: len(begun)] == begun
        fresh = device.log.count(f"w{sample.shape.out_channels}")
        rejected = (fresh + 1) // 2 if sample.shape.out_channels == 3 else 0  # every other one, from the first on
        assert len(sample.times_us) == len(begun) + fresh - rejected
        noted = f"{len(begun)} of {len(begun) + fresh} readings were taken before an interruption"
        assert (noted in sample.note) == bool(begun)


def test_a_finished_visit_ends_its_readings() -> None:
    device = Device()
    for sample in device.run([1, 2]):
        device.notebook.add(sample)
    assert [device.notebook.readings(linear(width)) for width in (1, 2)] == [(), ()]


def test_nothing_to_time_is_nothing() -> None:
    assert Device().run([]) == []
