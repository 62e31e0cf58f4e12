"""The CPU's clock: one untimed call, the other work of a network, one timed call."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial

from torch import Tensor

from .between import OtherWork
from .canary import Canary
from .interludes import Interludes
from .machine import preemptions
from .places import Places
from .readings import Call, Prepared, Reading, calls_per_reading

#: A pass of a network during which the core was taken away or shared is taken again this often in all; a millisecond then nearly always
#: gets through between two other processes (Linux runs each for about 3 ms), a tenth of a second never does. A block's reading is
#: not: it comes round again, in another moment.
TAKES = 3
#: perf_counter_ns and the loop cost about 0.1 us a reading; shorter readings would feel it.
MIN_READING_US = 20.0
#: Before the first estimate of the duration: kernels are generated, chosen and loaded in the first call.
WARMUPS = 1


class HostClock:
    """Reads a call on the CPU by the host's monotonic clock, in the cache state that `between` leaves.

    With other work between, a reading is one call: a second one would find everything warm. Without, calls shorter than
    20 us are read several at a time. Each reading's output lies in another place. A reading is disturbed where the system took the
    core meanwhile, or where the core was slow just after it or in one of its `interludes`, which are not counted as its time.
    """

    #: 1: other small layers ran between two calls; 2: none do, a place is written before the output lies there, and the heap's holes from 4 KiB up are
    #: plugged; 3: all of them are, anew in every round; 4: once per call.
    protocol = 4

    def __init__(self, between: OtherWork | None = None, canary: Canary | None = None) -> None:
        self.between = between
        self.canary = canary or Canary()
        self.interludes = Interludes(self.canary)

    @property
    def wants_spare(self) -> bool:
        """Whether a copy of the block, with weights of its own, should make the untimed calls."""
        return self.between is not None

    def prepare(self, call: Call, inputs: Sequence[Tensor], spare: Call | None = None) -> Prepared:
        for _ in range(WARMUPS):
            result = call()
        places = Places(result)
        del result
        used_at_mib = self.between.read_mib if self.between else 0
        calls = 1 if self.between else calls_per_reading(_timed_us(call, 1), MIN_READING_US)

        def after_other_work(between: OtherWork, spare: Call) -> Reading:
            nonlocal used_at_mib
            between.come_round(used_at_mib)
            call()
            between.forget()
            with places.another():  # a place of its own: another layer's
                spare()  # refills oneDNN's primitive cache, too
            self.canary.wait()
            with places.another():
                between.arrive(inputs)
                used_at_mib = between.read_mib
                return timed()

        def again() -> Reading:
            for _ in range(TAKES):
                self.canary.wait()
                with places.another():
                    call()
                    reading = timed()
                if not reading.disturbed:
                    break
            return reading

        def timed() -> Reading:
            before = preemptions()
            self.interludes.begin()
            took_us = _timed_us(call, calls)
            self.interludes.end()
            us = (took_us - self.interludes.sung_us) / calls
            disturbed = self.interludes.slow or preemptions() > before or self.canary.is_slow()
            return Reading(us, disturbed, tuple(self.interludes.parts_us))

        read = partial(after_other_work, self.between, spare) if self.between and spare else again
        return Prepared(read=read, warmups=WARMUPS + 1, calls=calls)


def _timed_us(call: Callable[[], object], calls: int) -> float:
    start = time.perf_counter_ns()
    for _ in range(calls):
        call()
    return (time.perf_counter_ns() - start) / 1e3
