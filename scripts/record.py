"""How a benchmark is kept: raw rows as CSV, and one JSON with what it ran on and whether each figure was reached."""

from __future__ import annotations

import csv
import json
import platform
import subprocess
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def figure(value: float, target: float | None = None, *, at_most: bool = True, unit: str = "") -> dict[str, object]:
    """A figure against its target; `ok` is None where none was set."""
    ok = None if target is None else bool(value <= target if at_most else value >= target)
    return {
        "value": round(value, 6),
        "target": target,
        "sense": "at most" if at_most else "at least",
        "unit": unit,
        "ok": ok,
    }


def record(
    name: str,
    *,
    figures: Mapping[str, Mapping[str, object]],
    rows: Sequence[Mapping[str, object]],
    environment: Mapping[str, object],
    notes: Sequence[str] = (),
) -> None:
    """Write benchmarks/NAME.csv and benchmarks/NAME.json, misses included, and print the figures."""
    folder = ROOT / "benchmarks"
    folder.mkdir(exist_ok=True)
    with (folder / f"{name}.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    body = {
        "benchmark": f"scripts/bench_{name.partition('-')[0]}.py",
        "utc": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "commit": commit(),
        "dirty": bool(_git("status", "--porcelain", "--untracked-files=no", "--", "tailprune", "recipes")),
        "environment": {"python": platform.python_version(), **environment},
        "versions": {
            package: version(package) for package in ("tailprune", "torch", "torch-pruning", "numpy", "scipy")
        },
        "notes": list(notes),
        "figures": figures,
    }
    (folder / f"{name}.json").write_text(json.dumps(body, indent=1) + "\n")
    for label, found in figures.items():
        mark = {True: "ok  ", False: "MISS", None: "    "}[found["ok"]]
        target = "" if found["target"] is None else f"  ({found['sense']} {found['target']})"
        print(f"{mark} {label}: {found['value']} {found['unit']}{target}")


def commit() -> str:
    """The short id of the commit this runs from; empty where there is no repository, as on a lent machine."""
    return _git("rev-parse", "--short", "HEAD")


def _git(*args: str) -> str:
    try:
        return subprocess.run(["git", *args], cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()
    except FileNotFoundError:  # no git here
        return ""
