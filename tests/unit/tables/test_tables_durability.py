"""Nothing reported as added is lost: kill -9 at any moment, two writers, two creators."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tables_strategies import ENVIRONMENT, out, sample

from tailprune.core.errors import TableError
from tailprune.tables import LatencyTable
from tailprune.tables.schema import MIGRATIONS

ROOT = Path(__file__).parents[3]
WRITER = """
import sys
sys.path.insert(0, sys.argv[1])
from tables_strategies import ENVIRONMENT, out, sample
from tailprune.tables import LatencyTable
path, first, step, count = sys.argv[2], *map(int, sys.argv[3:])
print("ready", flush=True)
sys.stdin.readline()
table = LatencyTable.open(path, environment=ENVIRONMENT)
for width in range(first, first + step * count, step):
    table.add(sample(out(width), width + 0.1, width + 0.2, note=str(first)))
    print(width, flush=True)
table.close()
print("done", flush=True)
"""


def start(path: Path, first: int, step: int, count: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, str(Path(__file__).parent), str(path), *map(str, (first, step, count))]
    writer = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    assert writer.stdout.readline() == "ready\n"
    return writer


def go(writer: subprocess.Popen[str]) -> None:
    assert writer.stdin is not None
    writer.stdin.write("\n")
    writer.stdin.flush()


def test_kill_9_loses_at_most_the_sample_in_flight(tmp_path: Path) -> None:
    path, moment = tmp_path / "t.db", random.Random(7)
    reported: set[int] = set()
    first = 1
    for _ in range(6):
        writer = start(path, first, 1, 100_000)
        go(writer)
        assert writer.stdout is not None
        lines = [writer.stdout.readline() for _ in range(moment.randint(0, 60))]
        time.sleep(moment.uniform(0.0, 0.005))
        os.kill(writer.pid, signal.SIGKILL)
        lines += writer.stdout.readlines()
        writer.wait()
        reported |= {int(line) for line in lines if line.endswith("\n")}
        with LatencyTable.open(path, environment=ENVIRONMENT) as table:
            assert table.complaints() == ()
            kept = {shape.shape.out_channels for shape in table.samples()}
            assert reported <= kept
            assert kept <= reported | {max(reported, default=0) + 1}
            assert all(table.sample(out(width)).times_us == (width + 0.1, width + 0.2) for width in kept)
            reported = kept
        first = max(kept, default=0) + 1
    assert first > 10, "the kills came before anything was added: the test tested nothing"


def test_two_processes_create_and_write_one_table(tmp_path: Path) -> None:
    path, count = tmp_path / "t.db", 150
    writers = [start(path, first, 2, count) for first in (1, 2)]
    for writer in writers:
        go(writer)
    for writer in writers:
        lines, _ = writer.communicate(timeout=120)
        assert (writer.returncode, lines.splitlines()[-1]) == (0, "done")
    with LatencyTable.open(path, create=False) as table:
        assert [s.note for s in table.visits()].count("1") == count
        assert {s.shape.out_channels for s in table.samples()} == set(range(1, 2 * count + 1))
        assert len(table.visits()) == 2 * count
        assert table.complaints() == ()
    assert [p.name for p in tmp_path.iterdir()] == ["t.db"]


def test_a_log_left_by_a_kill_is_read_too(tmp_path: Path) -> None:
    """The rows of a killed writer may lie in the log alone: a copy without it lacks them, opening here does not."""
    path = tmp_path / "t.db"
    writer = start(path, 1, 1, 100_000)
    go(writer)
    assert writer.stdout is not None
    for _ in range(20):
        writer.stdout.readline()
    os.kill(writer.pid, signal.SIGKILL)
    writer.communicate()
    assert (tmp_path / "t.db-wal").stat().st_size > 0
    with LatencyTable.open(path, read_only=True) as table:
        assert len(table) >= 20


def test_threads_of_one_process_share_a_table(tmp_path: Path) -> None:
    path, threads = tmp_path / "t.db", 4
    with LatencyTable.open(path, environment=ENVIRONMENT) as table:
        table.add_many(sample(out(width), float(width)) for width in range(1, 2001))
    with LatencyTable.open(path) as table, ThreadPoolExecutor(threads) as pool:

        def work(thread: int) -> float:
            known = table.latency_us(out(2000))  # all at once on a table not yet loaded
            for width in range(3000 + thread, 3400, threads):
                table.add(sample(out(width), float(width)))
            return known

        assert list(pool.map(work, range(threads))) == [2000.0] * threads
        assert len(table) == 2400
        table.refresh()
        assert len(table.visits()) == 2400


def test_readings_of_an_unfinished_visit_are_kept_for_every_process_and_end_with_it(tmp_path: Path) -> None:
    path = tmp_path / "t.db"
    with LatencyTable.open(path, environment=ENVIRONMENT) as one, LatencyTable.open(path) as other:
        for us in (3.5, 1.25, 2.0):
            one.note(out(8), us)
        one.note(out(9), 7.0)
        for table in (one, other):
            assert table.readings(out(8)) == (3.5, 1.25, 2.0)
            assert table.readings(out(10)) == ()
            assert (len(table), out(8) in table, table.visits()) == (0, False, ())
        other.add(sample(out(8), 3.5, 1.25, 2.0, 2.5))
        assert (one.readings(out(8)), one.readings(out(9))) == ((), (7.0,))
        assert one.complaints() == ()
    in_memory = LatencyTable.in_memory(ENVIRONMENT)
    in_memory.note(out(8), 3.5)
    assert in_memory.readings(out(8)) == (3.5,)
    in_memory.add(sample(out(8), 3.5))
    assert in_memory.readings(out(8)) == ()


def test_a_reading_noted_is_there_after_a_kill_and_a_read_only_table_takes_none(tmp_path: Path) -> None:
    path = tmp_path / "t.db"
    writer = subprocess.run([sys.executable, "-c", NOTER, str(Path(__file__).parent), str(path)], cwd=ROOT, check=False)
    assert writer.returncode == -signal.SIGKILL
    with LatencyTable.open(path, read_only=True) as table:
        assert table.readings(out(8)) == tuple(float(us) for us in range(1, 21))
        with pytest.raises(TableError, match="opened read-only"):
            table.note(out(8), 1.0)


NOTER = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
from tables_strategies import ENVIRONMENT, out
from tailprune.tables import LatencyTable
table = LatencyTable.open(sys.argv[2], environment=ENVIRONMENT)
for us in range(1, 21):
    table.note(out(8), float(us))
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_table_of_version_1_takes_readings_once_it_was_opened_for_writing(tmp_path: Path) -> None:
    path = tmp_path / "t.db"
    with LatencyTable.open(path, environment=ENVIRONMENT) as table:
        table.add(sample(out(8), 3.0))
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.executescript("DROP TABLE reading; PRAGMA user_version = 1")
    with pytest.raises(
        TableError, match=f"has table version 1, older than {len(MIGRATIONS)}; open it once for writing"
    ):
        LatencyTable.open(path, read_only=True)
    with LatencyTable.open(path) as table:
        table.note(out(9), 4.0)
        assert (table.latency_us(out(8)), table.readings(out(9))) == (3.0, (4.0,))
