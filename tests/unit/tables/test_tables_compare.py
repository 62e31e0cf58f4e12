"""Two tables: merging is idempotent and refuses a foreign one; differences are told shape by shape."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tables_strategies import CONV, ENVIRONMENT, out, sample, samples

from tailprune.core.errors import EnvironmentMismatch
from tailprune.core.sample import LatencySample
from tailprune.tables import LatencyTable, MergeReport, diff, merge


@settings(max_examples=40, deadline=None)
@given(st.lists(samples(), unique=True, max_size=10), st.data())
def test_shards_merge_into_the_whole(whole: list[LatencySample], data: st.DataObject) -> None:
    shard = [data.draw(st.integers(0, 2)) for _ in whole]  # 2: in both shards
    merged = LatencyTable.in_memory(ENVIRONMENT)
    for number in (0, 1):
        part = LatencyTable.in_memory(ENVIRONMENT)
        part.add_many(one for one, belongs in zip(whole, shard, strict=True) if belongs in (number, 2))
        merge(merged, part)
        again = merge(merged, part)
        assert (again.added, again.held, again.already_there) == (0, 0, len(part.visits()))
    assert set(merged.visits()) == set(whole)
    assert len(merged.visits()) == len(whole)


def test_merging_into_a_file_brings_plateaus_and_sees_its_other_writers(tmp_path: Path) -> None:
    into = LatencyTable.open(tmp_path / "t.db", environment=ENVIRONMENT)
    assert len(into) == 0
    with LatencyTable.open(tmp_path / "t.db") as writer:
        writer.add(sample(CONV, 5.0))
    other = LatencyTable.in_memory(dataclasses.replace(ENVIRONMENT, torch="2.9"))
    other.add_many([sample(CONV, 5.0), sample(out(96), 5.0)])
    other.hold(CONV, out(96), 5.0)
    report = merge(into, other)
    assert (report.added, report.already_there, report.held) == (1, 1, 1)
    assert report.warnings[0].startswith("torch is '2.6.0' in ")
    assert into.kind(out(72)) == "held"
    assert merge(into, into) == MergeReport(added=0, already_there=2, held=0, warnings=())


def test_a_table_from_elsewhere_is_not_merged() -> None:
    into = LatencyTable.in_memory(ENVIRONMENT)
    other = LatencyTable.in_memory(dataclasses.replace(ENVIRONMENT, num_sms=66, partition="MIG 3g"))
    other.add(sample(CONV))
    with pytest.raises(EnvironmentMismatch, match="num_sms is 132 in the table and 66 here; partition is ''"):
        merge(into, other)
    assert len(into) == 0


def test_diff_is_by_shape_and_knows_noise() -> None:
    a = LatencyTable.in_memory(ENVIRONMENT)
    b = LatencyTable.in_memory(dataclasses.replace(ENVIRONMENT, device="T4", cudnn="9"))
    a.add_many(
        [sample(CONV, 10.0, 10.1, 9.9), sample(out(72), 10.0, 12.0, 8.0), sample(out(80), 1.0), sample(out(88), 1.0)]
    )
    b.add_many([sample(CONV, 20.0, 20.1, 19.9), sample(out(72), 10.5, 12.5, 8.5), sample(out(96), 1.0)])
    b.add(LatencySample(shape=out(88), times_us=(), flags=("refused",)))
    found = diff(a, b)
    assert found.environment == {"device": ("NVIDIA H200", "T4"), "cudnn": ("", "9")}
    assert [(d.shape, d.ratio, d.significant) for d in found.common] == [(CONV, 2.0, True), (out(72), 1.05, False)]
    assert found.only_a == (out(80), out(88))
    assert found.only_b == (out(96),)
    assert not any(d.significant for d in diff(a, a).common)
