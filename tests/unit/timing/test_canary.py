"""The canary: slow is what lies well above its usual time, whatever it was at the start."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import pytest

from tailprune.timing import canary
from tailprune.timing.canary import EVERY, SLOW, Canary


def singing(times: Iterable[float]) -> Canary:
    bird, scripted = Canary(), iter(times)
    bird.sing = lambda: next(scripted)  # type: ignore[method-assign]
    return bird


def test_slow_is_a_time_well_above_the_usual_one() -> None:
    bird = singing([7.0] * EVERY + [7.0, 7.0 * SLOW, 7.01 * SLOW, 9.0, 7.1])
    assert [bird.is_slow() for _ in range(5)] == [False, False, True, True, False]


def test_the_fast_times_are_the_usual_ones_though_most_are_slow() -> None:
    bird = singing(itertools.cycle([9.0] * 4 + [7.0]))
    found = [bird.is_slow() for _ in range(1000)]
    assert sum(found) == 800


def test_one_that_started_in_a_slow_spell_learns_what_is_usual() -> None:
    bird = singing(itertools.chain([9.0] * (2 * EVERY), itertools.cycle([7.0, 9.0])))
    found = [bird.is_slow() for _ in range(10 * EVERY)]
    assert not any(found[:EVERY])
    assert found[-2:] in ([True, False], [False, True])


def test_a_core_that_stays_slower_is_usual_in_the_end() -> None:
    bird = singing(itertools.chain([7.0] * 100, itertools.repeat(9.0)))
    found = [bird.is_slow() for _ in range(2 * canary.REMEMBERED)]
    assert found[5 * EVERY]
    assert not found[-1]


def test_waiting_ends_with_the_slow_spell() -> None:
    spell = singing([7.0] * EVERY + [9.0, 9.0, 9.0, 7.0, 9.0])
    spell.wait()
    assert spell.is_slow(), "the next time of the script is the last one: waiting took four"


def test_a_long_wait_is_remembered_as_one_slow_time() -> None:
    bird = singing([7.0] * EVERY + [9.0] * 100 + [7.0])
    bird.wait()
    assert sorted(bird._times) == [7.0] * EVERY + [9.0], "or waiting would make slow times usual"


def test_waiting_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.count(0, 1_200_000)  # ns
    monkeypatch.setattr(canary.time, "perf_counter_ns", lambda: next(clock))
    sung = []
    bird = Canary()
    bird.sing = lambda: sung.append(1) or (7.0 if len(sung) <= EVERY else 9.0)  # type: ignore[method-assign]
    bird.wait()
    assert len(sung) == EVERY + 3, "at 1.2, 2.4 and 3.6 ms"


def test_its_own_work_never_changes() -> None:
    bird = Canary()
    assert bird.is_slow() in (True, False)
    before = bird._matrix.clone()
    bird.wait()
    assert (bird._matrix == before).all()
