"""How long does `tailprune table check` take to say whether a table still holds here, what does it say, and what does it notice?

    python -m scripts.bench_check [--table benchmarks/cpu/table-eager.csv.gz] [--runs 3]

The exported table is imported into a file, and real `tailprune table check FILE --device cpu` processes are timed, start
included. What a check notices is replayed: of the two real sweeps in benchmarks/cpu one is the table and the other the
device, on which some layers, drawn at random, have become slower. Writes benchmarks/check.csv (one row a run) and benchmarks/check.json.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean, median

from scripts.record import ROOT, figure, record
from tailprune import Environment, LatencySample, LatencyTable, LayerShape
from tailprune.tables import drift, import_csv, merge

#: What has become of the device: the share of its layers that take longer, and by how much.
CHANGES = ((0.0, 0.0), (1 / 3, 0.15), (1 / 3, 0.3), (1 / 2, 0.15), (1 / 2, 0.3), (1.0, 0.15))
#: Replayed checks of each change, and shapes of each replayed table.
REPLAYS, SHAPES = 200, 400


@dataclasses.dataclass(frozen=True, kw_only=True)
class Changed:
    """The device of a recorded sweep, some of whose layers have become slower."""

    recorded: LatencyTable
    slower: frozenset[LayerShape]
    by: float

    @property
    def environment(self) -> Environment:
        return self.recorded.environment

    def time(self, shape: LayerShape) -> LatencySample:
        sample = self.recorded.sample(shape)
        factor = 1 + self.by if shape in self.slower else 1.0
        return dataclasses.replace(sample, times_us=tuple(factor * us for us in sample.times_us))

    def time_many(self, shapes: Sequence[LayerShape]) -> Iterator[LatencySample]:
        return map(self.time, shapes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", type=Path, default=ROOT / "benchmarks" / "cpu" / "table-eager.csv.gz")
    parser.add_argument("--runs", type=int, default=3)
    args = parser.parse_args()
    exported = import_csv(args.table)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "table.db"
        with LatencyTable.open(path, environment=exported.environment) as table:
            merge(table, exported)
        rows = [check(path) for _ in range(args.runs)]
    sweeps = [import_csv(ROOT / f"benchmarks/cpu/fill_{name}.csv.gz") for name in ("first", "second")]
    record(
        "check",
        figures={
            "shapes in the table": figure(len(exported)),
            "seconds of one check, process start included": figure(
                median(row["seconds"] for row in rows), 40, unit="s"
            ),
            "entries timed again": figure(min(row["re_timed"] for row in rows)),
            "checks that say drifted": figure(sum(row["verdict"] == "drifted" for row in rows)),
            **{
                f"replayed, {share:.0%} of layers {by:.0%} slower: says {verdict}": figure(found)
                for share, by in CHANGES
                for verdict, found in noticed(*sweeps, share, by).items()
            },
        },
        rows=rows,
        environment=exported.environment.as_dict(),
        notes=[f"the table is {args.table.name}, measured earlier on this machine", *(row["problems"] for row in rows)],
    )


def check(path: Path) -> dict:
    began = time.monotonic()
    command = [sys.executable, "-m", "tailprune", "table", "check", str(path), "--device", "cpu", "--json"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    seconds = round(time.monotonic() - began, 2)
    said = json.loads(ended.stdout)
    drift = said["drift"] or {"verdict": "not asked: the table is not sound", "scale": 0.0, "moved": 0, "re_timed": 0}
    return {"seconds": seconds, **drift, "problems": said["summary"]}


def noticed(then: LatencyTable, now: LatencyTable, share: float, by: float) -> dict[str, float]:
    """How often a check of random parts of the one sweep, against the other with some of its layers slower, says what."""
    draw = random.Random(0)
    both = [s for s in then.samples() if s.usable and s.shape in now and now.sample(s.shape).usable]
    said = []
    for _ in range(REPLAYS):
        some = draw.sample(both, SHAPES)
        table = LatencyTable.in_memory(then.environment)
        table.add_many(some)
        slower = frozenset(s.shape for s in some if draw.random() < share)
        said.append(drift(table, Changed(recorded=now, slower=slower, by=by), pause_s=0).verdict)
    return {verdict: fmean(one == verdict for one in said) for verdict in ("holds", "scaled", "drifted")}


if __name__ == "__main__":
    main()
