"""How long does `tailprune table check` take to say whether a table still holds here, and what does it say? On a real table.

    python -m scripts.bench_check [--table benchmarks/cpu/table-eager.csv.gz] [--runs 3]

The exported table is imported into a file, and real `tailprune table check FILE --device cpu` processes are timed, start
included. Writes benchmarks/check.csv (one row a run) and benchmarks/check.json.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from scripts.record import ROOT, figure, record
from tailprune.tables import LatencyTable, import_csv, merge


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
    record(
        "check",
        figures={
            "shapes in the table": figure(len(exported)),
            "seconds of one check, process start included": figure(
                median(row["seconds"] for row in rows), 40, unit="s"
            ),
            "entries timed again": figure(min(row["re_timed"] for row in rows)),
            "checks that say drifted": figure(sum(row["verdict"] == "drifted" for row in rows)),
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


if __name__ == "__main__":
    main()
