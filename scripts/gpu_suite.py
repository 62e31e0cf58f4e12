"""Measure what docs/results-gpu.md shows, on any CUDA machine; with --device cpu its CPU form.

    python scripts/gpu_suite.py --out DIR --max-minutes 9                 # a GPU: tiers A, B, C in the order of their value
    python scripts/gpu_suite.py --out DIR --device cpu --tiers A          # a CPU: smaller networks, the same stages
    python scripts/gpu_report.py DIR                                      # the page and its plots

Stops cleanly at --max-minutes, and the same command goes on where it stopped: latency tables keep every sample, journal.jsonl
every finished stage. DIR holds at most eight files and no folders. Needs torch 2.6+, torchvision, numpy, scipy, torch-pruning,
safetensors, matplotlib, typer and rich; weights are random, nothing is downloaded.
"""

from __future__ import annotations

import argparse
import platform
import sys
import time
from contextlib import closing
from importlib.metadata import version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a file, on machines where nothing is installed

from scripts.record import commit
from scripts.suite.bench import Bench, TimeIsUp
from scripts.suite.journal import Journal
from scripts.suite.stages import FORMS, Stage, stages
from tailprune.core.errors import TailpruneError
from tailprune.core.sample import utc_now
from tailprune.tables import export_csv

#: Where files are carried back from a lent machine, none may be larger than 16 MiB; a stage adds less than the difference.
LARGEST_FILE_BYTES = 15 * 2**20
PACKAGES = ("torch", "torchvision", "torch-pruning", "numpy", "scipy")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for results; an earlier run's goes on")
    parser.add_argument("--device", default="cuda", help="cuda, cuda:N or cpu")
    parser.add_argument("--max-minutes", type=float, default=9.0)
    parser.add_argument("--tiers", default="ABC", help="any of A, B and C")
    asked = parser.parse_args(arguments)
    start = time.monotonic()
    asked.out.mkdir(parents=True, exist_ok=True)
    journal = Journal(asked.out / "journal.jsonl")
    try:
        form = FORMS["cpu" if asked.device == "cpu" else "cuda"]
        deadline = start + 60 * asked.max_minutes
        with closing(Bench(asked.device, asked.out, deadline=deadline, precision=form.precision)) as bench:
            left = run(bench, journal, list(stages(form, asked.tiers)))
    except TailpruneError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(
        f"{left} stages left" if left else "complete",
        f"after {(time.monotonic() - start) / 60:.1f} minutes",
        flush=True,
    )
    return 0


def run(bench: Bench, journal: Journal, todo: list[Stage]) -> int:
    """Say where and with what, run the stages, export the tables; returns how many stages are left."""
    journal.append(f"run {utc_now()}", {
        "environment": bench.timer().environment.as_dict(), "python": platform.python_version(), "commit": commit(),
        "versions": {package: version(package) for package in PACKAGES},
    })  # fmt: skip
    left = run_stages(todo, bench, journal)
    for runtime in {None, *(stage.get("setting", {}).get("runtime") for stage in journal.of("fill"))}:
        table = bench.table(runtime)
        assert table.path is not None
        export_csv(table, table.path.with_suffix(".csv.gz"), digits=5)
    return left


def run_stages(todo: list[Stage], bench: Bench, journal: Journal) -> int:
    """Run what the journal lacks until the time is up; returns how many stages are left.

    A stage starts only where the last one of its kind would have fitted. One that fails says why, the next one runs, and the
    next call tries it again.
    """
    lasted: dict[str, float] = {}
    waiting = [stage for stage in todo if "error" in journal.entries.get(stage.name, {"error": "not run yet"})]
    for index, stage in enumerate(waiting):
        kind, began = stage.name.split()[0], time.monotonic()
        full = any(file.stat().st_size > LARGEST_FILE_BYTES for file in bench.out.iterdir())
        if full or began + lasted.get(kind, 0.0) > bench.deadline:
            print("a file is full" if full else "no time for", stage.name, flush=True)
            return len(waiting) - index
        try:
            body = stage.run(bench, journal)
        except TimeIsUp:
            print("time is up in", stage.name, flush=True)
            return len(waiting) - index
        except (TailpruneError, RuntimeError) as error:
            body = {"error": f"{type(error).__name__}: {error}"}
        lasted[kind] = time.monotonic() - began
        journal.append(stage.name, {"utc": utc_now(), "seconds": round(lasted[kind], 1), **body})
        print(f"{lasted[kind]:6.1f} s  {stage.name}  {body.get('error', '')}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
