"""Held plateaus against brute force: who is inside, which one is in force, what is refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tables_strategies import CONV, DEPTHWISE, ENVIRONMENT, POOL, out, sample

from tailprune.core.errors import MissingLatency, TableError
from tailprune.core.shapes import LayerShape
from tailprune.tables import HeldPlateau, LatencyTable

GROUPED = dataclasses.replace(CONV, conv_groups=2)


def at(shape: LayerShape, axis: str, width: int) -> LayerShape:
    if axis == "both":
        return shape.with_channels(in_channels=width, out_channels=width)
    return shape.with_channels(**{f"{axis}_channels": width})


def brute_force(holds: list[tuple[LayerShape, str, int, int, float]], shape: LayerShape) -> float | None:
    """Literally: equal in all but the one axis, between the ends; a later hold erases those it overlaps."""
    answers: dict[str, float | None] = {}
    in_force: list[tuple[LayerShape, str, int, int, float]] = []
    for new in holds:
        base, axis, low, high, _ = new
        in_force = [
            old
            for old in in_force
            if old[1] != axis or at(old[0], axis, 2) != at(base, axis, 2) or old[3] <= low or old[2] >= high
        ]
        in_force.append(new)
    for base, axis, low, high, us in sorted(in_force, key=lambda hold: hold[2]):
        if any(at(base, axis, w) == shape for w in range(low, high + 1, 2)):
            answers.setdefault(axis, us)
    return answers.get("both", answers.get("out", answers.get("in")))


lines = st.sampled_from(
    [
        (CONV, "out"), (CONV, "in"), (out(32), "in"), (CONV.with_channels(in_channels=32), "out"), (GROUPED, "out"),
        (GROUPED, "in"), (DEPTHWISE, "both"), (POOL, "both"), (dataclasses.replace(CONV, batch=8), "out"),
    ]
)  # fmt: skip
ends = (
    st.tuples(st.integers(1, 40), st.integers(1, 40))
    .map(lambda p: (2 * min(p), 2 * max(p)))
    .filter(lambda p: p[0] < p[1])
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(lines, ends), min_size=1, max_size=6), st.data())
def test_held_answers_equal_brute_force(drawn: list, data: st.DataObject) -> None:
    table = LatencyTable.in_memory(ENVIRONMENT)
    holds = []
    for us, ((base, axis), (low, high)) in enumerate(drawn, start=1):
        for width in (low, high):
            if at(base, axis, width) not in table:
                table.add(sample(at(base, axis, width), 1000.0))
        table.hold(at(base, axis, low), at(base, axis, high), float(us))
        holds.append((base, axis, low, high, float(us)))
    base, axis = data.draw(lines)
    for width in range(2, 84, 2):
        shape = at(base, axis, width)
        expected = brute_force(holds, shape)
        if shape in table:
            assert (table.latency_us(shape), table.kind(shape)) == (1000.0, "measured")
        elif expected is None:
            with pytest.raises(MissingLatency):
                table.latency_us(shape)
        else:
            assert (table.latency_us(shape), table.kind(shape)) == (expected, "held")
            assert shape not in table


def test_a_held_answer_gives_way_to_a_measurement_and_to_a_failure() -> None:
    table = LatencyTable.in_memory(ENVIRONMENT)
    table.add_many([sample(out(64), 5.0), sample(out(96), 5.2)])
    table.hold(out(64), out(96), 5.1)
    assert table.latency_us(out(72)) == 5.1
    table.add(sample(out(72), 7.0))
    assert (table.latency_us(out(72)), table.kind(out(72))) == (7.0, "measured")
    table.add(dataclasses.replace(sample(out(80)), times_us=(), flags=("refused",)))
    with pytest.raises(MissingLatency, match="refused"):
        table.latency_us(out(80))
    assert table.latency_us(out(88)) == 5.1


def test_holds_survive_the_file_in_their_order(tmp_path: Path) -> None:
    with LatencyTable.open(tmp_path / "t.db", environment=ENVIRONMENT) as table:
        table.add_many(sample(out(width), 5.0) for width in (16, 32, 48, 64))
        table.hold(out(16), out(64), 5.0)
        table.hold(out(16), out(32), 4.0)
        table.hold(out(48), out(64), 6.0)
        table.hold(out(48), out(64), 6.0)
        table.hold(out(64), out(64), 6.0)
        held = table.held
    with LatencyTable.open(tmp_path / "t.db", read_only=True) as again:
        assert again.held == held
        assert [p.us for p in held] == [4.0, 6.0]
        assert again.plateau_of(out(56)) == HeldPlateau(low=out(48), high=out(64), us=6.0)
        assert again.plateau_of(out(40)) is None


@pytest.mark.parametrize(
    ("low", "high", "us", "sentence"),
    [
        (out(64), out(72), 5.0, r"only between measured ends, and conv 3x3 64->72 .* was not measured"),
        (out(64), out(80), 5.0, r"only between measured ends, and conv 3x3 64->80 .* was not measured"),
        (out(96), out(64), 5.0, r"low end of a plateau is the narrower one; swap"),
        (out(64), CONV.with_channels(in_channels=96, out_channels=96), 5.0, r"one channel axis, but .* differ in more"),
        (out(64), dataclasses.replace(out(96), batch=8), 5.0, r"one channel axis"),
        (out(64), out(96), float("nan"), r"must be positive and finite, got nan"),
        (out(64), out(96), 0.0, r"must be positive and finite, got 0\.0"),
    ],
)
def test_what_cannot_be_held_is_refused(low: LayerShape, high: LayerShape, us: float, sentence: str) -> None:
    table = LatencyTable.in_memory(ENVIRONMENT)
    wide = CONV.with_channels(in_channels=96, out_channels=96)
    table.add_many([sample(out(64)), sample(out(96)), sample(wide), sample(dataclasses.replace(out(96), batch=8))])
    table.add(dataclasses.replace(sample(out(80)), times_us=(), flags=("out_of_memory",)))
    with pytest.raises(TableError, match=sentence):
        table.hold(low, high, us)
    assert table.held == ()
