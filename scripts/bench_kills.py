"""Does `tailprune measure` lose anything when it is killed with -9? Real processes, random moments, until the table is full.

    python -m scripts.bench_kills [--simulated 30] [--measured 20]

Each kill falls into a run that goes on from the one before; a table that gets full is compared with an undisturbed run's, and
the next kill starts a new table. A simulated timer hands over one sample at a time. A DeviceTimer has hundreds of shapes in flight:
there the readings of unfinished ones count, before the kill, after it, and in the samples they end up in.
Writes benchmarks/kills.csv (one row a kill) and benchmarks/kills.json.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import sqlite3
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch_pruning  # noqa: F401  loaded here once, and shared by every forked process
import torchvision  # noqa: F401

from scripts.record import figure, record
from tailprune.cli.main import main as tailprune
from tailprune.core.sample import LatencySample
from tailprune.tables import LatencyTable

#: Longer than it takes from one simulated sample to the next but one.
BETWEEN_SAMPLES_S = 0.003
SMALL_NETWORK = """
from torch import nn
def build():
    return nn.Sequential(nn.Conv2d(3, 24, 3), nn.ReLU(), nn.Conv2d(24, 40, 3), nn.ReLU(), nn.Conv2d(40, 10, 1))
"""
SIMULATED, MEASURED = ("--simulate", "h200"), ("--device", "cpu")


@dataclass(frozen=True, slots=True, kw_only=True)
class Kill:
    """One kill: samples and readings another process had seen before it, what was there after it, and what was found wrong.

    Readings are those of unfinished visits; `went_on` are the samples in the end that say they hold some from before a kill.
    """

    timer: str
    new_samples: int
    after_s: float
    seen: int
    kept: int
    readings_seen: int
    readings_lost: int
    finished: bool  # the run ended by itself before the kill
    wrong: str = ""
    went_on: int = 0  # of a finished table: samples that hold readings of a run that was killed
    other_shapes: int = 0  # of a finished table: shapes that it or an undisturbed run's holds, and the other does not


def measure(table: Path, timer: tuple[str, ...]) -> list[str]:
    """The command line. Hundreds of samples a second simulated; on the device a network that takes it a few seconds."""
    network = "torchvision:resnet18"
    if timer == MEASURED:
        (table.parent / "network.py").write_text(SMALL_NETWORK)
        network = f"{table.parent / 'network.py'}:build"
    return ["measure", "-m", network, "--input-shape", "3,64,64", "--quiet", "-t", str(table), *timer]


def start(arguments: list[str]) -> int:
    """`tailprune ARGUMENTS` in a process of its own; forked, so that torch is not loaded fifty times."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        silence = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silence, 1)
        os.dup2(silence, 2)
        sys.argv = ["tailprune", *arguments]
        tailprune()
        code = 0
    except SystemExit as ended:
        code = int(ended.code or 0)
    finally:
        os._exit(code)


def count_samples(table: Path) -> int:
    """What another process can see now."""
    try:
        return len(sample_numbers(table))
    except sqlite3.OperationalError:  # there is no file yet, or no table in it
        return 0


def sample_numbers(table: Path) -> list[int]:
    return [number for (number,) in rows_of(table, "SELECT id FROM sample ORDER BY id")]


def readings_of(table: Path) -> set[tuple[int, int, float]]:
    """(number, shape, microseconds) of each reading of an unfinished visit that another process can see now."""
    try:
        return set(rows_of(table, "SELECT id, shape_id, us FROM reading"))
    except sqlite3.OperationalError:
        return set()


def rows_of(table: Path, query: str) -> list[tuple]:
    with contextlib.closing(sqlite3.connect(f"{table.as_uri()}?mode=ro", uri=True, timeout=5)) as reader:
        return reader.execute(query).fetchall()


def kill_once(arguments: list[str], table: Path, *, new_samples: int, after_s: float) -> Kill:
    """Start, wait for so many new samples and so long, look, kill -9, look again."""
    before: tuple[LatencySample, ...] = ()
    if count_samples(table):
        with LatencyTable.open(table, read_only=True) as opened:  # closed before the fork, as SQLite demands
            before = opened.visits()
    pid = start(arguments)
    finished = False
    while count_samples(table) < len(before) + new_samples and not finished:
        finished = os.waitpid(pid, os.WNOHANG)[0] == pid
    if not finished:
        time.sleep(after_s)
        finished = os.waitpid(pid, os.WNOHANG)[0] == pid
    seen, readings = count_samples(table), readings_of(table)
    if not finished:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    missing = lost(table, readings - readings_of(table))
    return Kill(timer="simulated" if "--simulate" in arguments else "measured", new_samples=new_samples,
                after_s=round(after_s, 4), seen=seen, kept=count_samples(table), readings_seen=len(readings),
                readings_lost=missing, finished=finished, wrong=what_is_wrong(table, before, seen))  # fmt: skip


def lost(table: Path, gone: set[tuple[int, int, float]]) -> int:
    """How many readings that are there no more are in no sample of their shape either."""
    times: dict[int, set[float]] = {}
    for shape, text in rows_of(table, "SELECT shape_id, times_us FROM sample") if gone else ():
        times.setdefault(shape, set()).update(map(float, text.split()))
    return sum(us not in times.get(shape, ()) for _, shape, us in gone)


def what_is_wrong(table: Path, before: tuple[LatencySample, ...], seen: int) -> str:
    """Samples that were there and are not, a hole in their numbers, or a file that is not sound; empty if nothing."""
    if not count_samples(table):
        return "everything is lost" if seen else ""
    with LatencyTable.open(table) as opened:
        visits, complaints = opened.visits(), opened.complaints()
    ids = sample_numbers(table)
    if complaints:
        return complaints[0]
    if len(ids) < seen or ids != list(range(1, len(ids) + 1)):
        return f"{len(ids)} samples, highest number {ids[-1]}, {seen} were seen before the kill"
    return "" if set(before) <= set(visits) else "a sample of an earlier run is lost"


def kills(folder: Path, timer: tuple[str, ...], count: int, seed: int = 0) -> Iterator[Kill]:
    """`count` kills: three of four a random time after a random new sample, the others at a random time from the start.

    Runs that end before their kill are in the answer as well.
    """
    moment, number, done, whole = random.Random(seed), 0, 0, folder / "undisturbed.db"
    began = time.monotonic()
    os.waitpid(start(measure(whole, timer)), 0)
    run_s, samples = time.monotonic() - began, count_samples(whole)
    while done < count:
        table = folder / f"killed-{number}.db"
        early = done % 4 == 3
        kill = kill_once(
            measure(table, timer),
            table,
            new_samples=0 if early else moment.randint(1, samples // 3),
            after_s=moment.uniform(0, run_s / 2 if early else BETWEEN_SAMPLES_S),
        )
        done += not kill.finished
        if kill.finished:
            number += 1
            kill = replace(kill, went_on=went_on(table), other_shapes=other_shapes(table, whole))
        yield kill


def went_on(table: Path) -> int:
    with LatencyTable.open(table, read_only=True) as opened:
        return sum("before an interruption" in visit.note for visit in opened.visits())


def other_shapes(table: Path, whole: Path) -> int:
    """None where both saw the same times; on a device what filling asks for next depends on noise."""
    with LatencyTable.open(table, read_only=True) as one, LatencyTable.open(whole, read_only=True) as other:
        shapes = [{sample.shape for sample in opened.samples()} for opened in (one, other)]
    return len(shapes[0] ^ shapes[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulated", type=int, default=30)
    parser.add_argument("--measured", type=int, default=20)
    args = parser.parse_args()
    found: list[Kill] = []
    for timer, count in ((SIMULATED, args.simulated), (MEASURED, args.measured)):
        with tempfile.TemporaryDirectory() as folder:
            for kill in kills(Path(folder), timer, count):
                found.append(kill)
                print(kill, flush=True)
    killed = [kill for kill in found if not kill.finished]
    ended = [kill for kill in found if kill.finished and kill.timer == "simulated"]
    record(
        "kills",
        figures={
            "runs": figure(len(found)),
            "kills with -9": figure(len(killed), 50, at_most=False),
            "kills that lost a sample, or left an unsound file": figure(sum(bool(k.wrong) for k in found), 0),
            "simulated tables finished after kills": figure(len(ended)),
            "of these, with other shapes than an undisturbed run's": figure(sum(k.other_shapes > 0 for k in ended), 0),
            "kills between a run's first sample and its last": figure(sum(k.new_samples > 0 for k in killed)),
            "kills with readings of unfinished visits in flight": figure(sum(k.readings_seen > 0 for k in killed)),
            "readings in flight at these kills, in all": figure(sum(k.readings_seen for k in killed)),
            "of them, lost": figure(sum(k.readings_lost for k in killed), 0),
            "samples that went on from readings before a kill": figure(sum(k.went_on for k in found)),
        },
        rows=[asdict(kill) for kill in found],
        environment={"platform": sys.platform},
    )


if __name__ == "__main__":
    main()
