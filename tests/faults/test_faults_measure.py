"""Real `tailprune` processes under what machines do to them: kills, full disks, company, and files of others."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.bench_kills import SIMULATED, count_samples, kills, measure, start
from tailprune.tables import LatencyTable

ROOT = Path(__file__).parents[2]


def test_kills_with_9_lose_nothing(tmp_path: Path) -> None:
    """The short form of `python -m scripts.bench_kills`."""
    found = list(kills(tmp_path, SIMULATED, 4, seed=3))
    assert [kill.wrong for kill in found] == [""] * len(found)
    assert sum(not kill.finished for kill in found) == 4
    assert any(kill.kept for kill in found if not kill.finished), "all came before the first sample: nothing was tested"


def test_two_processes_fill_one_table(tmp_path: Path) -> None:
    """They may time a shape twice; they lose none, and leave nothing for a third."""
    table = tmp_path / "both.db"
    writers = [start(measure(table, SIMULATED)) for _ in range(2)]
    assert [os.waitpid(writer, 0)[1] for writer in writers] == [0, 0]
    samples = count_samples(table)
    assert os.waitpid(start(measure(table, SIMULATED)), 0)[1] == 0
    assert count_samples(table) == samples
    with LatencyTable.open(table) as opened:
        assert opened.complaints() == ()
        assert len(opened.visits()) == samples


def run_cli(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tailprune", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200"}
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment, timeout=120)


def can_mount() -> bool:
    if shutil.which("unshare") is None:
        return False
    tried = ["unshare", "--user", "--mount", "--map-root-user", "mount", "-t", "tmpfs", "none", "/mnt"]
    return subprocess.run(tried, capture_output=True).returncode == 0


@pytest.mark.skipif(not can_mount(), reason="this system lets no ordinary process mount a small tmpfs")
def test_a_disk_that_is_really_full(tmp_path: Path) -> None:
    """A tmpfs of 400 KiB: one sentence, exit code 1, and what was added before is a sound table."""
    disk, kept = tmp_path / "disk", tmp_path / "kept"
    disk.mkdir()
    kept.mkdir()
    mount = f"mount -t tmpfs -o size=400k none {disk}"
    full = " ".join(measure(disk / "t.db", SIMULATED))
    script = (
        f"{mount} && {sys.executable} -m tailprune {full}; code=$?; df {disk} >&2; cp {disk}/t.db* {kept}; exit $code"
    )
    found = subprocess.run(
        ["unshare", "--user", "--mount", "--map-root-user", "bash", "-c", script],
        cwd=ROOT, capture_output=True, text=True, timeout=120, env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "400"},
    )  # fmt: skip
    assert found.returncode == 1, found.stderr
    assert "database or disk is full. What was added before is safe; mend the cause" in found.stderr
    assert "Traceback" not in found.stderr
    seen = count_samples(kept / "t.db")
    assert seen > 10
    with LatencyTable.open(kept / "t.db") as table:
        assert table.complaints() == ()
        assert len(table.visits()) == seen


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda path: path.mkdir(), "is a directory; a latency table is one file"),
        (lambda path: path.symlink_to("nowhere.db"), "is a symlink to nowhere.db, which does not exist"),
        (lambda path: path.write_bytes(b"SQLite format 3\x00" + bytes(40)), "is truncated: 56 bytes"),
        (lambda path: path.write_text("op,batch\n"), "it is no SQLite file"),
    ],
)
def test_what_is_no_table_is_left_as_it_is(tmp_path: Path, make, sentence: str) -> None:
    path = tmp_path / "t.db"
    make(path)
    before = path.read_bytes() if path.is_file() else None
    found = run_cli("table", "info", str(path))
    assert found.returncode == 1
    assert sentence in " ".join(found.stderr.split())
    assert found.stderr.count("error:") == 1 and "Traceback" not in found.stderr
    assert (path.read_bytes() if path.is_file() else None) == before
