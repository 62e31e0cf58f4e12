"""Trust in a table: what the check finds in it, and what re-timing says about it."""

from __future__ import annotations

import dataclasses
import random
import sqlite3
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import pytest
from tables_strategies import CONV, ENVIRONMENT, out, sample

from tailprune.core.environment import Environment
from tailprune.core.errors import EnvironmentMismatch, TableError
from tailprune.core.protocols import LayerTimer
from tailprune.core.sample import LatencySample
from tailprune.core.shapes import LayerShape
from tailprune.tables import Contradiction, LatencyTable, check_table, drift


def test_a_sound_table_has_nothing_to_report(tmp_path: Path) -> None:
    with LatencyTable.open(tmp_path / "t.db", environment=ENVIRONMENT) as table:
        table.add_many([sample(CONV, 10.0, 10.1, 9.9), sample(out(96), 10.1, 10.2), sample(out(72), 10.2)])
        table.hold(CONV, out(96), 10.0)
        check = check_table(table)
        assert check.ok
        assert check.summary() == "sound: nothing to report"


def test_each_kind_of_doubt_is_found() -> None:
    table = LatencyTable.in_memory(ENVIRONMENT)
    twice = sample(out(8), 10.0, 10.1, 9.9, utc="2025-01-01")
    table.add_many([twice, twice])
    table.add_many([sample(out(16), 10.0, 10.1, 9.9), sample(out(16), 11.0, 11.1, 10.9)])
    spiky = sample(out(24), *[10.0, 10.1, 9.9] * 5, 40.0)
    table.add_many([spiky, sample(out(32), 1.0, flags=("unstable",))])
    table.add(LatencySample(shape=out(40), times_us=(), flags=("refused",)))
    table.add_many([sample(out(48), 10.0), sample(out(56), 10.4), sample(out(64), 10.0)])
    table.hold(out(48), out(64), 10.0)
    check = check_table(table)
    assert check.duplicates == (twice,)
    assert [d.shape for d in check.disagreements] == [out(16)]
    assert check.disagreements[0].medians_us == (10.0, 11.0)
    assert [(o.sample, o.times_us) for o in check.outliers] == [(spiky, (40.0,))]
    assert (check.unstable, check.failed) == ((out(32),), (out(40),))
    assert check.contradictions == (Contradiction(plateau=table.held[0], shape=out(56), measured_us=10.4),)
    assert not check.ok
    assert check.summary() == (
        "NOT SOUND: 1 contradicted plateaus, 1 unstable shapes, 1 failed shapes, 1 visits with outliers, "
        "1 shapes with disagreeing visits, 1 duplicates"
    )


def test_what_noise_explains_is_no_finding() -> None:
    table = LatencyTable.in_memory(ENVIRONMENT)
    table.add_many([sample(CONV, 10.0, 12.0, 8.0), sample(CONV, 11.0, 13.0, 9.0)])  # 10 % apart, one sigma
    table.add_many([sample(out(96), 10.0), sample(out(128), 10.0), sample(out(112), 10.4, 11.4, 9.4)])
    table.hold(out(96), out(128), 10.0)
    check = check_table(table)
    assert check.disagreements == ()
    assert check.contradictions == ()


@pytest.mark.parametrize("flags", [(("noisy",), ()), (("throttled",), ()), ((), ("afresh",))])
def test_a_visit_that_does_not_count_is_no_disagreement(flags: tuple[tuple[str, ...], ...]) -> None:
    table = LatencyTable.in_memory(ENVIRONMENT)
    table.add_many([sample(CONV, 20.0, flags=flags[0]), sample(CONV, 10.0, flags=flags[1])])
    assert check_table(table).disagreements == ()


def test_every_unreadable_row_is_listed(tmp_path: Path) -> None:
    path = tmp_path / "t.db"
    with LatencyTable.open(path, environment=ENVIRONMENT) as table:
        table.add_many(sample(out(width)) for width in range(8, 48, 8))
        table.hold(out(8), out(40), 10.0)
    connection = sqlite3.connect(path)
    connection.execute("UPDATE sample SET times_us = 'inf' WHERE id = 2")
    connection.execute("UPDATE shape SET op = 'magic' WHERE id = 4")
    connection.execute("UPDATE held SET us = 1e999")
    connection.commit()
    connection.close()
    with LatencyTable.open(path, read_only=True) as table:
        check = check_table(table)
    assert not check.ok
    assert [problem.partition(" cannot")[0] for problem in check.problems] == [
        "shape 4", "sample 2", "sample 4", "held plateau 1",
    ]  # fmt: skip


def test_a_damaged_page_is_a_problem_not_an_error(tmp_path: Path) -> None:
    path = tmp_path / "t.db"
    with LatencyTable.open(path, environment=ENVIRONMENT) as table:
        table.add_many(sample(out(width), *map(float, range(1, 50))) for width in range(8, 800, 8))
    random.seed(3)
    with path.open("r+b") as file:
        file.seek(8 * 4096)
        file.write(random.randbytes(4096 * 4))
    with LatencyTable.open(path, read_only=True) as table:
        check = check_table(table)
    assert not check.ok
    assert check.problems


class ScaledTimer:
    """A device on which every layer takes `factor(shape)` of what the table says."""

    def __init__(self, table: LatencyTable, factor: object, environment: Environment = ENVIRONMENT) -> None:
        self.table, self.factor, self._environment = table, factor, environment
        self.asked: list[LayerShape] = []

    @property
    def environment(self) -> Environment:
        return self._environment

    def time(self, shape: LayerShape) -> LatencySample:
        self.asked.append(shape)
        factor = self.factor(shape) if callable(self.factor) else self.factor
        if factor is None:
            return sample(shape, 1.0, 2.0, 9.0, flags=("unstable",))
        us = factor * self.table.latency_us(shape)
        return sample(shape, us, us * 1.001, us * 0.999)

    def time_many(self, shapes: Sequence[LayerShape]) -> Iterator[LatencySample]:
        return map(self.time, reversed(shapes))


drift_now = partial(drift, pause_s=0)


@pytest.fixture
def table() -> LatencyTable:
    table = LatencyTable.in_memory(ENVIRONMENT)
    table.add_many(sample(out(width), width * 0.999, width * 1.0, width * 1.001) for width in range(1, 101))
    table.add(sample(out(999), 5.0, 1.0, 9.0, flags=("unstable",)))
    table.add(LatencySample(shape=out(1000), times_us=(), flags=("refused",)))
    return table


def test_drift_holds_scales_or_drifts(table: LatencyTable) -> None:
    timer = ScaledTimer(table, 1.005)
    assert isinstance(timer, LayerTimer)
    visits = table.visits()
    report = drift_now(table, timer, count=12)
    assert report.verdict == "holds"
    assert report.summary().startswith("holds: 0 of 12 re-timed entries moved, now / then 1.005;")
    asked = sorted(shape.out_channels for shape in timer.asked)
    assert (len(asked), asked[0], asked[-1]) == (12, 1, 100)  # from the fastest to the slowest, none of the unstable
    assert drift_now(table, ScaledTimer(table, 1.10)).verdict == "scaled"
    assert drift_now(table, ScaledTimer(table, 0.90)).verdict == "scaled"
    assert (
        drift_now(table, ScaledTimer(table, lambda shape: 1.4 if shape.out_channels > 50 else 1.0)).verdict == "drifted"
    )
    one_off = drift_now(table, ScaledTimer(table, lambda shape: 2.0 if shape.out_channels == 100 else 1.0))
    assert (one_off.verdict, [entry.shape for entry in one_off.moved]) == ("holds", [out(100)])
    assert table.visits() == visits


class SpellTimer(ScaledTimer):
    """A device that takes twice as long at its first looks, since something else uses it."""

    def __init__(self, table: LatencyTable, looks: int) -> None:
        super().__init__(table, 2.0)
        self.looks = looks

    def time_many(self, shapes: Sequence[LayerShape]) -> Iterator[LatencySample]:
        self.factor, self.looks = (2.0 if self.looks else 1.0), self.looks - 1
        return super().time_many(shapes)


@pytest.mark.parametrize(
    ("slow_looks", "verdict", "looks"), [(0, "holds", 1), (1, "holds", 2), (2, "holds", 3), (3, "scaled", 3)]
)
def test_drift_looks_again_before_it_says_so(table: LatencyTable, slow_looks: int, verdict: str, looks: int) -> None:
    timer = SpellTimer(table, slow_looks)
    report = drift_now(table, timer, count=12)
    assert (report.verdict, len(timer.asked), len(report.entries)) == (verdict, 12 * looks, 12)


def test_drift_leaves_out_what_does_not_settle(table: LatencyTable) -> None:
    report = drift_now(table, ScaledTimer(table, lambda shape: None if shape.out_channels > 50 else 1.0), count=4)
    assert report.verdict == "holds"
    assert len(report.unsettled) == 2
    assert ", 2 did not settle and were left out" in report.summary()
    with pytest.raises(TableError, match=r"4 were re-timed and 4 did not settle"):
        drift_now(table, ScaledTimer(table, lambda shape: None), count=4)


def test_drift_on_another_device_is_refused_and_a_new_driver_is_what_it_is_for(table: LatencyTable) -> None:
    with pytest.raises(EnvironmentMismatch, match="device"):
        drift_now(table, ScaledTimer(table, 1.0, dataclasses.replace(ENVIRONMENT, device="T4")))
    report = drift_now(table, ScaledTimer(table, 1.0, dataclasses.replace(ENVIRONMENT, driver="600")))
    assert report.warnings[0].startswith("driver is '550.1'")


def test_drift_asks_for_something_to_compare(table: LatencyTable) -> None:
    with pytest.raises(TableError, match="0 were re-timed"):
        drift_now(LatencyTable.in_memory(ENVIRONMENT), ScaledTimer(table, 1.0))
    with pytest.raises(TableError, match="At least one entry"):
        drift_now(table, ScaledTimer(table, 1.0), count=0)
    assert len(drift_now(table, ScaledTimer(table, 1.0), count=1).entries) == 1
    assert len(drift_now(table, ScaledTimer(table, 1.0), count=500).entries) == 100
