"""Files that are no table, tables of elsewhere, disks that fill up: one sentence each, and the file as it was."""

from __future__ import annotations

import dataclasses
import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from tables_strategies import CONV, ENVIRONMENT, out, sample

from tailprune.core.environment import REFUSED, WARNED, Environment
from tailprune.core.errors import EnvironmentMismatch, FormatError, TableError
from tailprune.tables import LatencyTable, header, store
from tailprune.tables.schema import APPLICATION_ID, MIGRATIONS

ROOT = Path(__file__).parents[3]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "t.db"
    with LatencyTable.open(path, environment=ENVIRONMENT) as table:
        table.add_many(sample(out(width), *(float(i) for i in range(1, 60))) for width in range(8, 200, 8))
    return path


def refusal(path: Path, **options: object) -> str:
    before = path.read_bytes() if path.is_file() else None
    with pytest.raises(TableError) as caught:
        LatencyTable.open(path, **options)  # type: ignore[arg-type]
    assert (path.read_bytes() if path.is_file() else None) == before
    assert "\n" not in str(caught.value)
    return f"{type(caught.value).__name__}: {caught.value}"


def change(path: Path, *statements: str) -> None:
    connection = sqlite3.connect(path)
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()


def test_a_table_that_is_not_there(tmp_path: Path) -> None:
    path = tmp_path / "t.db"
    assert refusal(path, create=False).endswith("t.db does not exist; `tailprune measure` fills one.")
    assert refusal(path, read_only=True, environment=ENVIRONMENT).startswith("TableError")
    assert refusal(path).endswith("is new; creating it needs the environment it is measured in.")
    assert "the folder" in refusal(tmp_path / "no" / "t.db", environment=ENVIRONMENT)
    assert list(tmp_path.iterdir()) == []
    path.touch()
    assert "is empty" in refusal(path, create=False)


def test_places_that_hold_no_file(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("nowhere")
    assert "is a symlink to nowhere, which does not exist" in refusal(tmp_path / "link", environment=ENVIRONMENT)
    assert "FormatError" in (text := refusal(tmp_path, environment=ENVIRONMENT))
    assert "is a directory" in text
    (tmp_path / "full").symlink_to("/dev/full")
    assert "is not a regular file" in refusal(tmp_path / "full", environment=ENVIRONMENT)
    (tmp_path / "file").write_text("x")
    assert "Not a directory" in refusal(tmp_path / "file" / "t.db", environment=ENVIRONMENT)


def test_a_symlink_to_a_table_is_the_table(path: Path) -> None:
    (path.parent / "link").symlink_to(path.name)
    with LatencyTable.open(path.parent / "link", create=False) as table:
        assert CONV in table


def test_files_of_others(path: Path, tmp_path: Path) -> None:
    text = tmp_path / "t.csv"
    text.write_text("op,batch\n")
    assert "it is no SQLite file. `tailprune table import` reads CSV" in refusal(text)
    foreign = tmp_path / "foreign.db"
    change(foreign, "CREATE TABLE mine (x)")
    assert "FormatError" in (text_ := refusal(foreign, environment=ENVIRONMENT))
    assert "is an SQLite database of another program" in text_
    change(path, "PRAGMA user_version = 99")
    assert f"has table version 99; this tailprune reads up to {len(MIGRATIONS)}. Upgrade" in refusal(path)


@pytest.mark.parametrize("share", [0.01, 0.2, 0.5, 0.99])
@pytest.mark.parametrize("read_only", [False, True])
def test_a_truncated_file(path: Path, share: float, read_only: bool) -> None:
    size = path.stat().st_size
    os.truncate(path, int(size * share))
    assert "is truncated" in refusal(path, read_only=read_only)


def test_garbage_inside_a_page_is_an_error_when_it_is_read(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (path.stat().st_size - 4096))
    with pytest.raises(FormatError, match=r"is corrupt: .*malformed"), LatencyTable.open(path, read_only=True) as table:
        len(table)


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        ("times_us", "1.0 nan", "not a positive number"),
        ("times_us", "1.0 -3", "not a positive number"),
        ("times_us", "", "holds no times"),
        ("times_us", "fast", "must be numbers, got 'fast'"),
        ("flags", "lucky", "Unknown sample flag 'lucky'"),
        ("shape_id", "77", "77"),
    ],
)
def test_a_row_that_is_no_sample_is_named(path: Path, column: str, value: str, reason: str) -> None:
    change(path, f"UPDATE sample SET {column} = '{value}' WHERE id = 3")
    table = LatencyTable.open(path)
    with pytest.raises(FormatError, match=rf"sample 3 cannot be read \(.*{reason}"):
        table.latency_us(CONV)
    assert len(table.complaints()) == (2 if column == "shape_id" else 1)
    with pytest.raises(FormatError):  # the failed read left nothing half-loaded behind
        table.latency_us(CONV)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"device": "x", "colour": "red"}', "an environment field 'colour' that this tailprune does not know"),
        ('{"device": "x", "threads": "4"}', "states '4' as the environment's threads, which must be of type int"),
        ('{"threads": 4}', "does not say in which environment"),
        ("[]", "does not say in which environment"),
        ('{"device": ', "is corrupt"),
    ],
)
def test_an_environment_that_cannot_be_read(path: Path, text: str, reason: str) -> None:
    change(path, f"UPDATE environment SET json = '{text}'")
    assert reason in refusal(path).replace("''", "'")
    change(path, "DELETE FROM environment")
    assert "does not say in which environment" in refusal(path)


def test_an_older_environment_has_defaults_for_new_fields(path: Path) -> None:
    change(path, "UPDATE environment SET json = '" + json.dumps({"device": "x"}) + "'")
    assert LatencyTable.open(path).environment == Environment(device="x")


def test_every_refused_field_is_named_with_both_values(path: Path) -> None:
    for field in REFUSED:
        value = getattr(ENVIRONMENT, field)
        other = not value if isinstance(value, bool) else value * 2 if isinstance(value, int) else value + " other"
        elsewhere = dataclasses.replace(ENVIRONMENT, **{field: other})
        text = refusal(path, environment=elsewhere)
        assert text.startswith("EnvironmentMismatch")
        assert f"{field} is {value!r} in the table and {other!r} here. Measure into another file" in text
    two = dataclasses.replace(ENVIRONMENT, device="T4", tf32=True)
    with pytest.raises(
        EnvironmentMismatch, match=r"device is 'NVIDIA H200' .* 'T4' here; tf32 is False in the table and True"
    ):
        LatencyTable.open(path, environment=two)


def test_every_warned_field_is_a_warning(path: Path) -> None:
    for field in WARNED:
        newer = dataclasses.replace(ENVIRONMENT, **{field: "9"})
        with LatencyTable.open(path, environment=newer) as table:
            assert len(table.warnings) == 1
            assert table.warnings[0].startswith(f"{field} is {getattr(ENVIRONMENT, field)!r} in ")
            assert "and '9' here; `tailprune table check`" in table.warnings[0]
            assert table.environment == ENVIRONMENT
    with LatencyTable.open(path, environment=ENVIRONMENT) as table:
        assert table.warnings == ()


def test_the_file_says_whose_it_is_and_of_which_version(path: Path) -> None:
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA application_id").fetchone() == (APPLICATION_ID,)
    assert connection.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS),)
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()


def test_a_migration_upgrades_for_writers_and_is_asked_for_by_readers(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def this_tailprune_has(*migrations: tuple[str, ...]) -> None:
        for module in (store, header):
            monkeypatch.setattr(module, "MIGRATIONS", migrations)

    with LatencyTable.open(path) as table:
        before = table.visits()
    later = (*MIGRATIONS, ("ALTER TABLE environment ADD COLUMN site TEXT NOT NULL DEFAULT 'here'",))
    this_tailprune_has(*later)
    sentence = f"has table version {len(MIGRATIONS)}, older than {len(later)}; open it once for writing"
    assert sentence in refusal(path, read_only=True)
    this_tailprune_has(*MIGRATIONS, ("CREATE TABLE half (x)", "no SQL"))
    assert "syntax error" in refusal(path)
    this_tailprune_has(*later)
    with LatencyTable.open(path) as table:
        assert table.visits() == before
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA user_version").fetchone() == (len(later),)
    assert connection.execute("SELECT site FROM environment").fetchall() == [("here",)]
    assert connection.execute("SELECT name FROM sqlite_master WHERE name = 'half'").fetchall() == []
    connection.close()


FILL_THE_DISK = """
import resource, sys
sys.path.insert(0, {tests!r})
from tables_strategies import ENVIRONMENT, out, sample
from tailprune.core.errors import TableError
from tailprune.tables import LatencyTable
if {new}:
    resource.setrlimit(resource.RLIMIT_FSIZE, (2048, 2048))
added = 0
try:
    with LatencyTable.open({path!r}, environment=ENVIRONMENT) as table:
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
        for width in range(1, 4000):
            table.add(sample(out(width), *(float(i) for i in range(1, 60))))
            added += 1
except TableError as error:
    print(added, error)
"""


def fill_the_disk(path: Path, new: bool) -> str:
    script = FILL_THE_DISK.format(tests=str(Path(__file__).parent), path=str(path), new=new)
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stderr == ""
    return done.stdout


def test_a_full_disk_keeps_what_was_added(tmp_path: Path) -> None:
    """A file-size limit stands for the full disk: SQLite's write fails in the same place."""
    path = tmp_path / "t.db"
    added, _, text = fill_the_disk(path, new=False).partition(" ")
    assert text.startswith(f"Cannot use {path}: ")
    assert "What was added before is safe; mend the cause" in text
    with LatencyTable.open(path) as table:
        assert table.complaints() == ()
        assert {s.shape.out_channels for s in table.samples()} == set(range(1, int(added) + 1))
        table.add(sample(out(4096)))


def test_a_disk_full_from_the_start_leaves_nothing_in_the_way(tmp_path: Path) -> None:
    path = tmp_path / "t.db"
    assert fill_the_disk(path, new=True).startswith(f"0 Cannot use {path}: ")
    with LatencyTable.open(path, environment=ENVIRONMENT) as table:
        table.add(sample(CONV))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere; permissions mean nothing to it")
def test_a_folder_that_cannot_be_written(path: Path) -> None:
    path.parent.chmod(0o500)
    path.chmod(0o400)
    try:
        assert "permission denied" in refusal(path)
        with LatencyTable.open(path, read_only=True) as table:
            assert CONV in table
        assert "permission denied" in refusal(path.parent / "new.db", environment=ENVIRONMENT)
    finally:
        path.parent.chmod(0o700)


def test_permission_is_asked_before_anything_is_opened(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What root cannot test with the disk itself."""
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert "permission denied. Open it read-only" in refusal(path)
    with LatencyTable.open(path, read_only=True) as table:
        assert CONV in table
        assert [p.name for p in path.parent.iterdir()] == ["t.db"]
