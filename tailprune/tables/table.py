"""What does a shape cost here? The latencies of one environment, kept on disk, asked by the hundred thousand."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from threading import RLock
from types import TracebackType

from ..core.environment import Environment
from ..core.errors import EnvironmentMismatch, MissingLatency, TableError
from ..core.protocols import LatencyKind
from ..core.sample import LatencySample
from ..core.shapes import LayerShape
from .held import HeldPlateau, HeldPlateaus
from .store import News, Store
from .visits import latency_of, merge_visits, noise_of


class LatencyTable:
    """Measured latencies of one environment, in one SQLite file or in memory. A `core.protocols.LatencySource`.

    A shape may be visited several times. Of its visits with times those **count** that are not older than the last one taken
    afresh, and of these those without a doubt (not throttled or noisy), if there are any. Its latency is the median, over the
    visits that count, of each one's median. Between the measured ends of a held plateau the table
    answers with the plateau's value, kind `held`; anywhere else it raises MissingLatency and never guesses.

    >>> from tailprune.core.environment import Environment
    >>> shape = LayerShape(op="conv", batch=1, in_channels=64, out_channels=64, in_hw=(8, 8))
    >>> with LatencyTable.in_memory(Environment(device="laptop")) as table:
    ...     table.add(LatencySample(shape=shape, times_us=(10.0, 11.0, 30.0)))
    ...     table.add(LatencySample(shape=shape.with_channels(out_channels=80), times_us=(11.0,)))
    ...     table.hold(shape, shape.with_channels(out_channels=80), 11.0)
    ...     table.latency_us(shape), table.kind(shape.with_channels(out_channels=72))
    (11.0, 'held')
    """

    def __init__(self, environment: Environment, store: Store | None = None, warnings: tuple[str, ...] = ()) -> None:
        """Use `open` or `in_memory`."""
        self._environment, self._store, self.warnings = environment, store, warnings
        self._loaded = store is None
        self._lock = RLock()  # a planner's threads may ask while a timer's adds
        self._visits: dict[LayerShape, list[LatencySample]] = {}
        self._held = HeldPlateaus()
        self._known_us: dict[LayerShape, float] = {}  # every answer given, until something touches it
        self._readings: dict[LayerShape, list[float]] = {}  # in memory: of visits that are not finished

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        *,
        environment: Environment | None = None,
        create: bool = True,
        read_only: bool = False,
    ) -> LatencyTable:
        """Open a table, or create it for an environment.

        EnvironmentMismatch if it was measured where steps may lie elsewhere (the fields `core.environment.REFUSED`);
        a difference in the others is one line each in `warnings`. FormatError for a file that is corrupt, truncated,
        foreign or newer, TableError for one that is missing or cannot be written; the file stays as it was.
        """
        store = Store.open(Path(path), environment, create=create, read_only=read_only)
        try:
            warnings = () if environment is None else compare_environments(str(path), store.environment, environment)
        except EnvironmentMismatch:
            store.close()
            raise
        return cls(store.environment, store, warnings)

    @classmethod
    def in_memory(cls, environment: Environment) -> LatencyTable:
        """A table that ends with the process."""
        return cls(environment)

    @property
    def environment(self) -> Environment:
        return self._environment

    @property
    def path(self) -> Path | None:
        """None for a table in memory."""
        return self._store.path if self._store else None

    @property
    def origin(self) -> str:
        place = self.path.name if self.path else "in memory"
        return f"latency table {place}: {len(self)} shapes measured on {self._environment}"

    def add(self, sample: LatencySample) -> None:
        """Keep one visit. When this returns, kill -9 cannot take it back."""
        self.add_many((sample,))

    def add_many(self, samples: Iterable[LatencySample]) -> None:
        """Keep all of these visits, or none (one transaction)."""
        self._commit(tuple(samples), ())

    def hold(self, low: LayerShape, high: LayerShape, us: float) -> None:
        """Answer `us` for every shape from `low` to `high`, which differ in one channel axis (depthwise and
        elementwise layers: in both alike) and were both measured. Who calls this has confirmed that no edge lies
        between. On one line a new plateau replaces those it overlaps by more than a common end; `low` equal to
        `high` holds nothing."""
        for end in (low, high):
            if not (end in self and self.sample(end).usable):
                raise TableError(f"A plateau can be held only between measured ends, and {end} was not measured.")
        plateau = HeldPlateau(low=low, high=high, us=us)
        if low != high and plateau not in self._plateaus:
            self._commit((), (plateau,))

    def note(self, shape: LayerShape, us: float) -> None:
        """Keep one reading of a visit that goes on. It is part of no latency; `add` of the finished visit ends it."""
        with self._lock:
            if self._store:
                self._store.note(shape, us)
            else:
                self._readings.setdefault(shape, []).append(us)

    def readings(self, shape: LayerShape) -> tuple[float, ...]:
        """Microseconds read in a visit that was begun and not finished, by any process."""
        with self._lock:
            return self._store.readings(shape) if self._store else tuple(self._readings.get(shape, ()))

    def refresh(self) -> None:
        """See what other processes added since this one last added or looked."""
        if self._store:
            with self._lock:
                self._absorb(self._store.pull())

    def __contains__(self, shape: object) -> bool:
        """Measured, or known to fail here: no need to time it again. Held shapes are not in the table."""
        return shape in self._shapes

    def __len__(self) -> int:
        """Distinct shapes measured or known to fail."""
        return len(self._shapes)

    def sample(self, shape: LayerShape) -> LatencySample:
        """The raw times of all visits that count, flags and notes united; see the class for which count."""
        visits = self.visits(shape)
        if not visits:
            raise self._missing(shape)
        return merge_visits(visits)

    def samples(self) -> Iterator[LatencySample]:
        """One merged sample per shape, failed ones included, in the order of first visits."""
        return map(merge_visits, tuple(self._shapes.values()))

    def visits(self, shape: LayerShape | None = None) -> tuple[LatencySample, ...]:
        """Every visit of a shape (of all shapes) as it was added, none if there was none."""
        if shape is None:
            return tuple(chain.from_iterable(self._shapes.values()))
        return tuple(self._shapes.get(shape, ()))

    @property
    def held(self) -> tuple[HeldPlateau, ...]:
        """The plateaus in force."""
        return tuple(self._plateaus)

    def plateau_of(self, shape: LayerShape) -> HeldPlateau | None:
        """The plateau in force around a shape, measured or not."""
        return self._plateaus.find(shape)

    def complaints(self) -> tuple[str, ...]:
        """What is wrong with the file itself, one sentence each; none in memory. `check_table` asks more."""
        with self._lock:
            return self._store.complaints() if self._store else ()

    def latency_us(self, shape: LayerShape) -> float:
        """Microseconds of one call: the median of the visits' medians, or the value of the held plateau around it.

        MissingLatency where neither is known. An unstable shape answers too, and is listed by `unstable_shapes`.
        """
        known = self._known_us.get(shape)
        if known is None:
            known = self._known_us[shape] = self._find_us(shape)
        return known

    def kind(self, shape: LayerShape) -> LatencyKind:
        self.latency_us(shape)
        return "measured" if self._measured(shape) else "held"

    def noise_us(self, shape: LayerShape) -> float:
        """One standard error of `latency_us`, by how the times within the visits that count scatter.

        For a held shape the larger of its plateau's ends. It covers neither a bias of the protocol nor a drift between visits, which
        shapes that are visited together share; `check_table` lists shapes whose visits disagree.
        """
        self.latency_us(shape)
        if not self._measured(shape):
            plateau = self.plateau_of(shape)
            return max(self.noise_us(end) for end in (plateau.low, plateau.high)) if plateau else 0.0
        return noise_of(self._shapes[shape])

    @property
    def unstable_shapes(self) -> tuple[LayerShape, ...]:
        """Measured shapes of which no visit settled: their latency is the best known, and not to be relied on."""
        return tuple(s.shape for s in self.samples() if s.usable and "unstable" in s.flags)

    def close(self) -> None:
        if self._store:
            with self._lock:
                self._store.close()

    def __enter__(self) -> LatencyTable:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def _shapes(self) -> dict[LayerShape, list[LatencySample]]:
        if not self._loaded:
            self.refresh()
        return self._visits

    @property
    def _plateaus(self) -> HeldPlateaus:
        if not self._loaded:
            self.refresh()
        return self._held

    def _measured(self, shape: LayerShape) -> bool:
        return any(visit.usable for visit in self._shapes.get(shape, ()))

    def _find_us(self, shape: LayerShape) -> float:
        visits = self._shapes.get(shape)
        if visits and any(visit.usable for visit in visits):
            return latency_of(visits)
        plateau = self._plateaus.find(shape)
        if visits or plateau is None:
            raise self._missing(shape)
        return plateau.us

    def _missing(self, shape: LayerShape) -> MissingLatency:
        visits = self._shapes.get(shape)
        if not visits:
            where = self.path or f"the table of {self._environment.device}"
            return MissingLatency(f"No latency of {shape} in {where}; time it with `tailprune measure`.", (shape,))
        failed = visits[-1]
        reason = "ran out of memory" if "out_of_memory" in failed.flags else "was refused by the backend"
        note = f" ({failed.note})" if failed.note else ""
        return MissingLatency(
            f"{shape} has no latency on {self._environment.device}: it {reason}{note}. Plan other widths or a smaller batch.",
            (shape,),
        )

    def _commit(self, samples: tuple[LatencySample, ...], held: tuple[HeldPlateau, ...]) -> None:
        news = News(samples=samples, held=held)
        with self._lock:
            self._absorb(self._store.push(samples, held) if self._store else news)

    def _absorb(self, news: News) -> None:
        for sample in news.samples:
            self._visits.setdefault(sample.shape, []).append(sample)
            self._known_us.pop(sample.shape, None)
            self._readings.pop(sample.shape, None)
        for plateau in news.held:
            self._held.add(plateau)
        if news.held:
            self._known_us.clear()
        self._loaded = True  # the first news of a file is all of it


def compare_environments(name: str, table: Environment, here: Environment) -> tuple[str, ...]:
    """One warning per difference that usually leaves steps in place; EnvironmentMismatch for any other."""
    refused, warned = table.differences(here)
    if refused:
        fields = "; ".join(
            f"{field} is {theirs!r} in the table and {ours!r} here" for field, (theirs, ours) in refused.items()
        )
        raise EnvironmentMismatch(
            f"{name} was measured in another environment: {fields}. Measure into another file, or restore that environment."
        )
    return tuple(
        f"{field} is {theirs!r} in {name} and {ours!r} here; `tailprune table check` tells in 30 s whether it still holds."
        for field, (theirs, ours) in warned.items()
    )
