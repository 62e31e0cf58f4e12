"""What a table answers: round trips, visits that count, held plateaus, and the errors for everything else."""

from __future__ import annotations

import tempfile
from pathlib import Path
from statistics import median

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tables_strategies import CONV, DEPTHWISE, ENVIRONMENT, out, sample, samples

from tailprune.core.errors import MissingLatency, TableError
from tailprune.core.protocols import FirstOf, LatencySource
from tailprune.core.sample import LatencySample, calm_times
from tailprune.tables import LatencyTable, describe_table


@pytest.fixture(params=["file", "memory"])
def table(request: pytest.FixtureRequest, tmp_path: Path) -> LatencyTable:
    if request.param == "memory":
        return LatencyTable.in_memory(ENVIRONMENT)
    return LatencyTable.open(tmp_path / "t.db", environment=ENVIRONMENT)


@settings(max_examples=40, deadline=None)
@given(st.lists(samples(), max_size=8))
def test_what_is_added_is_read_back_exactly(added: list[LatencySample]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "t.db"
        with LatencyTable.open(path, environment=ENVIRONMENT) as table:
            for one in added[:3]:
                table.add(one)
            table.add_many(added[3:])
            written = table.visits()
        with LatencyTable.open(path, create=False) as again:
            assert again.environment == ENVIRONMENT
            assert sorted(map(repr, again.visits())) == sorted(map(repr, added)) == sorted(map(repr, written))
            assert set(again.visits()) == set(added)
            assert len(again) == len({one.shape for one in added})
            for shape in {one.shape for one in added}:
                assert again.visits(shape) == tuple(one for one in added if one.shape == shape)


@settings(max_examples=150, deadline=None)
@given(st.lists(samples(st.just(CONV)), min_size=1, max_size=5))
def test_a_sample_is_the_times_of_the_visits_that_count(visits: list[LatencySample]) -> None:
    table = LatencyTable.in_memory(ENVIRONMENT)
    table.add_many(visits)
    timed = [v for v in visits if v.times_us]
    last = max((number for number, v in enumerate(timed) if "afresh" in v.flags), default=0)
    counted = [v for v in timed[last:] if not set(v.flags) & {"throttled", "noisy"}] or timed[last:]
    expected = [t for v in counted for t in v.times_us]
    assert CONV in table
    if not expected:
        assert not table.sample(CONV).usable
        with pytest.raises(MissingLatency):
            table.latency_us(CONV)
        return
    assert list(table.sample(CONV).times_us) == expected
    assert table.latency_us(CONV) == median(median(calm_times(v.times_us)) for v in counted)
    assert table.kind(CONV) == "measured"
    assert (CONV in table.unstable_shapes) == all("unstable" in v.flags for v in counted)


def test_a_table_is_a_latency_source(table: LatencyTable) -> None:
    assert isinstance(table, LatencySource)
    table.add(sample(CONV, 3.0))
    other = LatencyTable.in_memory(ENVIRONMENT)
    other.add(sample(out(80), 4.0))
    both = FirstOf(table, other)
    assert (both.latency_us(CONV), both.latency_us(out(80))) == (3.0, 4.0)
    assert "1 shapes measured on NVIDIA H200, 132 SMs, cuda-graph" in table.origin


def test_an_unknown_shape_is_named_with_the_command_that_measures_it(table: LatencyTable) -> None:
    with pytest.raises(
        MissingLatency, match=r"^No latency of conv 3x3 64->72 at 14x14.*`tailprune measure`\.$"
    ) as caught:
        table.latency_us(out(72))
    assert caught.value.shapes == (out(72),)
    with pytest.raises(MissingLatency):
        table.kind(out(72))
    with pytest.raises(MissingLatency):
        table.sample(out(72))
    assert table.visits(out(72)) == ()
    assert out(72) not in table
    assert "conv" not in table


@pytest.mark.parametrize(
    ("flag", "reason"), [("out_of_memory", "ran out of memory"), ("refused", "was refused by the backend")]
)
def test_a_shape_that_cannot_run_is_known_and_says_why(table: LatencyTable, flag: str, reason: str) -> None:
    table.add(LatencySample(shape=CONV, times_us=(), flags=(flag,), note="tried to allocate 3 GiB"))
    assert CONV in table
    assert len(table) == 1
    with pytest.raises(MissingLatency, match=rf"{reason} \(tried to allocate 3 GiB\)\. Plan other widths"):
        table.latency_us(CONV)
    table.add(sample(CONV, 5.0))  # the memory was another process's
    assert table.latency_us(CONV) == 5.0


def test_an_answer_follows_a_later_visit(table: LatencyTable) -> None:
    table.add(sample(CONV, 10.0, flags=("unstable",)))
    assert table.latency_us(CONV) == 10.0
    assert table.unstable_shapes == (CONV,)
    table.add(sample(CONV, 20.0))
    assert table.latency_us(CONV) == 15.0
    assert table.unstable_shapes == ()
    table.add(sample(CONV, 30.0))
    assert table.latency_us(CONV) == 20.0
    assert [s.times_us for s in table.samples()] == [(10.0, 20.0, 30.0)]


def test_a_visit_afresh_outranks_all_before_it_and_none_behind_it(table: LatencyTable) -> None:
    latencies = []
    for us, flags in ((10.0, ()), (20.0, ("noisy", "afresh")), (30.0, ()), (40.0, ("afresh",)), (50.0, ())):
        table.add(sample(CONV, us, flags=flags))
        latencies.append(table.latency_us(CONV))
    assert latencies == [10.0, 20.0, 30.0, 40.0, 45.0]
    assert [visit.median_us for visit in table.visits(CONV)] == [10.0, 20.0, 30.0, 40.0, 50.0]
    table.add(LatencySample(shape=CONV, times_us=(), flags=("out_of_memory", "afresh")))
    assert table.latency_us(CONV) == 45.0


def test_what_a_machine_does_between_visits_moves_shapes_alike_and_not_against_each_other(table: LatencyTable) -> None:
    """The second visit met a machine 10 % slower: beside a shape of 10 us the calm times of both visits are the first's alone,
    beside one whose first visit met a few slow readings they are not."""
    steady, shaken = (10.0,) * 12, (10.0,) * 5 + (10.6,) * 7
    for factor in (1.0, 1.1):
        table.add(sample(CONV, *(factor * us for us in steady)))
        table.add(sample(out(96), *(1.06 * factor * us for us in shaken)))
    ratio = table.latency_us(out(96)) / table.latency_us(CONV)
    assert ratio == pytest.approx(1.06 * 1.06)


def test_noise_is_that_within_the_visits_and_falls_with_their_number(table: LatencyTable) -> None:
    times = (10.0, 10.2, 10.4)
    one = 1.2533 * 1.4826 * 0.2 / 3**0.5  # of the median of three, by their MAD
    for visits, noise_us in ((1, one), (2, one / 2**0.5), (3, 1.2533 * one / 3**0.5)):
        table.add(sample(CONV, *times))
        assert len(table.visits(CONV)) == visits
        assert table.noise_us(CONV) == pytest.approx(noise_us)
    table.add_many([sample(out(128), 1.0), sample(out(96), 5.0, 9.0)])
    table.hold(CONV, out(128), 12.0)
    table.hold(CONV, out(96), 12.0)
    assert table.noise_us(out(72)) == max(table.noise_us(CONV), table.noise_us(out(96)))


def test_one_visit_that_was_disturbed_as_a_whole_stops_counting_once_two_agree(table: LatencyTable) -> None:
    for us in (122.0, 68.0, 68.1):
        table.add(sample(CONV, us, us, us, flags=("unstable",)))
    assert table.latency_us(CONV) == 68.1
    assert table.noise_us(CONV) < 0.02 * 68.0


def test_other_processes_rows_show_after_refresh(tmp_path: Path) -> None:
    mine = LatencyTable.open(tmp_path / "t.db", environment=ENVIRONMENT)
    theirs = LatencyTable.open(tmp_path / "t.db", environment=ENVIRONMENT)
    assert len(mine) == 0
    theirs.add_many([sample(CONV, 2.0), sample(out(96), 2.0)])
    theirs.hold(CONV, out(96), 2.0)
    assert CONV not in mine
    mine.refresh()
    assert mine.latency_us(CONV) == 2.0
    assert mine.kind(out(80)) == "held"
    mine.add(sample(CONV, 4.0))
    theirs.refresh()
    theirs.refresh()
    assert theirs.visits() == mine.visits()
    assert theirs.latency_us(CONV) == 3.0


def test_a_batch_with_one_bad_sample_adds_none(tmp_path: Path) -> None:
    with LatencyTable.open(tmp_path / "t.db", environment=ENVIRONMENT) as table:
        with pytest.raises(AttributeError):
            table.add_many([sample(CONV), None])  # type: ignore[list-item]
        assert len(table) == 0
        table.add(sample(CONV))
    assert len(LatencyTable.open(tmp_path / "t.db").visits()) == 1


def test_read_only_and_closed_tables_say_so(tmp_path: Path) -> None:
    path = tmp_path / "t.db"
    with LatencyTable.open(path, environment=ENVIRONMENT) as table:
        table.add(sample(CONV))
    before = path.read_bytes()
    with LatencyTable.open(path, read_only=True) as table:
        assert table.latency_us(CONV) == 10.0
        with pytest.raises(TableError, match="opened read-only"):
            table.add(sample(CONV))
    with pytest.raises(TableError, match="is closed"):
        table.refresh()
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["t.db"]


def test_notes_that_no_file_takes_are_kept_readable(tmp_path: Path) -> None:
    with LatencyTable.open(tmp_path / "t.db", environment=ENVIRONMENT) as table:
        table.add(sample(CONV, note="bad \udc80 byte\0\r\nnext"))
        assert table.sample(CONV).note == "bad \\udc80 byte\\0\nnext"


def test_info_counts_shapes_visits_and_dates(table: LatencyTable) -> None:
    assert describe_table(table).last_utc == ""
    table.add(sample(CONV, 1.0, 2.0, utc="2025-03-01T00:00:00+00:00"))
    table.add(sample(CONV, 1.0, utc="2025-02-01T00:00:00+00:00"))
    table.add(sample(DEPTHWISE, 1.0, flags=("unstable",)))
    table.add(sample(out(96), 2.0))
    table.add(LatencySample(shape=out(99), times_us=(), flags=("refused",)))
    table.hold(CONV, out(96), 1.5)
    info = describe_table(table)
    assert (info.shapes, info.failed, info.unstable, info.held_plateaus, info.visits, info.times) == (4, 1, 1, 1, 5, 5)
    assert (info.by_op, info.by_dtype, info.by_batch) == ({"conv": 4}, {"float32": 4}, {4: 4})
    assert (info.first_utc, info.last_utc) == ("2025-02-01T00:00:00+00:00", "2025-03-01T00:00:00+00:00")
    assert info.as_dict()["environment"]["device"] == "NVIDIA H200"  # type: ignore[index]
