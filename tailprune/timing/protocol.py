"""Many shapes in turn: every round visits each one that has not settled, so that drift touches all alike."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from ..core.protocols import Notebook
from ..core.sample import FEWEST, LatencySample, calm_times, utc_now
from ..core.shapes import DTYPE_BYTES, LayerShape
from .clocks import ClockReading
from .readings import Prepared
from .stopping import StoppingRule

#: A device whose clock moved by more than this while a shape was timed timed it at no one speed.
CLOCK_JUMP = 0.05
#: A disturbed reading says nothing: this many visits may stand for each that does, before the rule's limit is reached.
PATIENCE = 3
#: oneDNN keeps 1024 primitives (its documentation, "Primitive Cache"); a convolution needs one and a reorder of its weights another.
MOST_ALIVE = 500


@dataclass(slots=True, kw_only=True)
class Series:
    """One shape under measurement: its readings so far, and what they cost."""

    shape: LayerShape
    prepared: Prepared
    times_us: list[float] = field(default_factory=list)
    begun: int = 0  # of these times, how many were read before this process went on
    rejected: int = 0
    disturbed_us: list[float] = field(default_factory=list)
    seconds: float = 0.0
    visits: int = 0
    slowdowns: set[str] = field(default_factory=set)
    notes: set[str] = field(default_factory=set)
    sm_clocks_hz: set[float] = field(default_factory=set)

    def visit(self) -> None:
        start = time.perf_counter()
        reading = self.prepared.read()
        self.seconds += time.perf_counter() - start
        self.visits += 1
        if math.isfinite(reading.us) and reading.us > 0:
            (self.disturbed_us if reading.disturbed else self.times_us).append(reading.us)
        else:
            self.rejected += 1

    def watch(self, clocks: ClockReading) -> None:
        self.slowdowns.update(clocks.slowdowns)
        if clocks.note:
            self.notes.add(clocks.note)
        if clocks.sm_clock_hz:
            self.sm_clocks_hz.add(clocks.sm_clock_hz)

    @property
    def visits_that_count(self) -> int:
        return max(self.visits - len(self.disturbed_us), self.visits // PATIENCE)

    @property
    def clock_jumped(self) -> bool:
        return bool(self.sm_clocks_hz) and min(self.sm_clocks_hz) < (1 - CLOCK_JUMP) * max(self.sm_clocks_hz)

    def sample(self, *, unstable: bool) -> LatencySample:
        crowded = len(self.disturbed_us) > len(self.times_us) < FEWEST  # then all of them are better than so few
        times_us = (*self.times_us, *self.disturbed_us) if crowded else tuple(self.times_us)
        if not times_us:
            return failed_sample(self.shape, "refused", f"none of {self.visits} readings was a positive time")
        noisy = self.rejected > 0 or crowded or self.clock_jumped
        flags = {"unstable": unstable, "throttled": bool(self.slowdowns), "noisy": noisy}
        notes = sorted(self.notes)
        if self.begun:
            notes.append(f"{self.begun} of {self.visits} readings were taken before an interruption")
        if self.rejected:
            notes.append(f"{self.rejected} of {self.visits} readings were no positive time and are left out")
        if self.disturbed_us:
            what = "count all the same" if crowded else "are left out"
            notes.append(
                f"the core was taken or shared during {len(self.disturbed_us)} of {self.visits} readings, which {what}"
            )
        if self.clock_jumped:
            slow, fast = (hz / 1e6 for hz in (min(self.sm_clocks_hz), max(self.sm_clocks_hz)))
            notes.append(f"the SM clock moved between {slow:,.0f} and {fast:,.0f} MHz")
        return LatencySample(shape=self.shape, times_us=times_us, warmups=self.prepared.warmups, utc=utc_now(),
                             flags=tuple(flag for flag, raised in flags.items() if raised), note="; ".join(notes))  # fmt: skip


def failed_sample(shape: LayerShape, flag: str, reason: str) -> LatencySample:
    """A shape that the device could not run, and why: kept, so that it is not tried again."""
    return LatencySample(shape=shape, times_us=(), utc=utc_now(), flags=(flag,), note=reason)


def held_bytes(shape: LayerShape) -> int:
    """What a waiting block keeps to itself: its weights (inputs are shared, outputs are freed)."""
    return shape.num_parameters * DTYPE_BYTES[shape.dtype]


def interleave(
    shapes: Sequence[LayerShape],
    *,
    prepare: Callable[[LayerShape], Prepared | LatencySample],
    visit: Callable[[Series], LatencySample | None],
    pinned: Callable[[], AbstractContextManager[None]],
    read_clocks: Callable[[], ClockReading],
    rule: StoppingRule,
    notebook: Notebook,
    most_alive: int = MOST_ALIVE,
    most_bytes: float = math.inf,
) -> Iterator[LatencySample]:
    """One sample per distinct shape, each yielded at the end of the round in which it settled or failed.

    At most `most_alive` shapes, holding at most `most_bytes`, are alive at once (always at least one); others enter as
    those settle. The notebook gets every reading as it is taken, and gives those of a visit that was interrupted, which goes
    on from there. `prepare` and `visit` answer with a sample where the device failed. Settings are pinned during a round
    and free again whenever the caller has control.
    """
    waiting = deque(dict.fromkeys(shapes))
    alive: list[Series] = []
    while waiting or alive:
        finished: list[LatencySample] = []
        with pinned():
            used = sum(held_bytes(series.shape) for series in alive)
            while waiting and len(alive) < most_alive:
                used += held_bytes(waiting[0])
                if alive and used > most_bytes:
                    break
                shape = waiting.popleft()
                entered = prepare(shape)
                if isinstance(entered, LatencySample):
                    finished.append(entered)
                    used -= held_bytes(shape)
                else:
                    begun = list(notebook.readings(shape))
                    series = Series(shape=shape, prepared=entered, times_us=begun, begun=len(begun), visits=len(begun))
                    alive.append(series)
            visited = []
            for series in alive:
                taken = len(series.times_us)
                failure = visit(series)
                for us in series.times_us[taken:]:
                    notebook.note(series.shape, us)
                if failure is None:
                    visited.append(series)
                else:
                    finished.append(failure)
            clocks = read_clocks()  # behind the visits: an idle device's clock says nothing
            going_on = []
            for series in visited:
                series.watch(clocks)
                verdict = rule.verdict(
                    calm_times(series.times_us), visits=series.visits_that_count, seconds=series.seconds
                )
                if verdict == "go on":
                    going_on.append(series)
                else:
                    finished.append(series.sample(unstable=verdict == "unstable"))
            alive = going_on
        yield from finished
