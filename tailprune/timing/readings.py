"""What a clock hands out: readings of a call that is warm and ready."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from torch import Tensor

#: A module on its inputs, made ready by a runtime.
Call = Callable[[], object]
#: A reading of more calls than this gains nothing.
MAX_CALLS = 1000


class Reading(NamedTuple):
    """Microseconds per call, whether other work took or shared the core meanwhile, and, where a network was listened to inside,
    its parts."""

    us: float
    disturbed: bool = False
    parts_us: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A call that is warm and ready: `read()` runs it once untimed, then timed."""

    read: Callable[[], Reading]
    warmups: int
    calls: int


class Clock(Protocol):
    """Reads calls on one kind of device. Runs inside `machine.pinned`."""

    @property
    def protocol(self) -> int:
        """The version of how it reads: one more wherever its times cease to be comparable with those before."""

    @property
    def wants_spare(self) -> bool:
        """Whether `prepare` should be given a second call, of a copy of the module with weights of its own."""

    def prepare(self, call: Call, inputs: Sequence[Tensor], spare: Call | None = None) -> Prepared: ...


def calls_per_reading(call_us: float, min_reading_us: float) -> int:
    return max(1, min(MAX_CALLS, math.ceil(min_reading_us / max(call_us, 1e-3))))
