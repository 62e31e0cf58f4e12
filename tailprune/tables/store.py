"""The SQLite file behind a table: opening, refusing, committing. The only file that speaks SQL to a database."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ..core.environment import Environment
from ..core.errors import FormatError, TableError, TailpruneError
from ..core.sample import LatencySample, utc_now
from ..core.shapes import LayerShape
from .header import inspect_file, log_of, refuse_newer
from .held import HeldPlateau
from .rows import (
    SAMPLE_COLUMNS,
    SHAPE_COLUMNS,
    environment_from,
    environment_text,
    sample_from_row,
    sample_row,
    shape_from_row,
    shape_row,
)
from .schema import APPLICATION_ID, MIGRATIONS

#: A writer waits this long for another process's commit, which takes milliseconds; after it the disk is at fault.
BUSY_TIMEOUT_S = 60.0
_INSERT_SHAPE = f"INSERT INTO shape ({', '.join(SHAPE_COLUMNS)}) VALUES ({', '.join('?' * len(SHAPE_COLUMNS))}) ON CONFLICT DO NOTHING"
_FIND_SHAPE = f"SELECT id FROM shape WHERE {' AND '.join(f'{name} = ?' for name in SHAPE_COLUMNS)}"
_INSERT_SAMPLE = f"INSERT INTO sample (shape_id, {', '.join(SAMPLE_COLUMNS)}) VALUES (?, ?, ?, ?, ?, ?)"
_FORGET_READINGS = "DELETE FROM reading WHERE shape_id = ?"
_READ_SHAPES = f"SELECT id, {', '.join(SHAPE_COLUMNS)} FROM shape WHERE id > ? ORDER BY id"
_READ_SAMPLES = f"SELECT id, shape_id, {', '.join(SAMPLE_COLUMNS)} FROM sample WHERE id > ? ORDER BY id"
_READ_READINGS = f"SELECT us FROM reading WHERE shape_id = ({_FIND_SHAPE}) ORDER BY id"
_READ_HELD = "SELECT id, low_id, high_id, us FROM held WHERE id > ? ORDER BY id"


@dataclass(frozen=True, slots=True, kw_only=True)
class News:
    """What was committed, by any process, since the last look."""

    samples: tuple[LatencySample, ...]
    held: tuple[HeldPlateau, ...]


class Store:
    """One open file, for one thread at a time. Every `push` is one transaction: once it returned, kill -9 cannot undo it."""

    def __init__(self, path: Path, connection: sqlite3.Connection, environment: Environment, read_only: bool) -> None:
        self.path, self.environment, self.read_only = path, environment, read_only
        self._db = connection
        self._shapes: dict[int, LayerShape] = {}
        self._seen = (0, 0, 0)  # last id read of shape, sample, held

    @classmethod
    def open(cls, path: Path, environment: Environment | None, *, create: bool, read_only: bool) -> Store:
        new = inspect_file(path)
        if new and (not create or read_only):
            what = "is empty" if path.exists() else "does not exist"
            raise TableError(f"The latency table {path} {what}; `tailprune measure` fills one.")
        if new and environment is None:
            raise TableError(f"The latency table {path} is new; creating it needs the environment it is measured in.")
        if not read_only and not os.access(path if path.exists() else path.parent, os.W_OK):
            raise TableError(
                f"Cannot write {path}: permission denied. Open it read-only, or copy it to a folder of yours."
            )
        connection = None
        try:
            with _one_sentence(path):
                connection = _connect(path, read_only)
                if not read_only:
                    _migrate(connection, path, environment)
                return cls(path, connection, _check(connection, path), read_only)
        except BaseException:
            if connection is not None:
                connection.close()
            raise  # a file still empty stays: another process may be creating the table in it

    def pull(self) -> News:
        """What other processes committed since the last pull or push."""
        with _one_sentence(self.path):
            with _transaction(self._db, "BEGIN"):
                news, shapes, seen = self._read(self._seen)
            return self._accept(news, shapes, seen)

    def push(self, samples: Sequence[LatencySample] = (), held: Sequence[HeldPlateau] = ()) -> News:
        """Commit all of it or nothing; the answer includes what others committed meanwhile."""
        if self.read_only:
            raise TableError(f"The latency table {self.path} was opened read-only; open it for writing to add to it.")
        with _one_sentence(self.path):
            with _transaction(self._db, "BEGIN IMMEDIATE"):
                for sample in samples:
                    shape_id = self._shape_id(sample.shape)
                    self._db.execute(_INSERT_SAMPLE, (shape_id, *sample_row(sample)))
                    self._db.execute(_FORGET_READINGS, (shape_id,))
                for plateau in held:
                    ends = self._shape_id(plateau.low), self._shape_id(plateau.high)
                    self._db.execute("INSERT INTO held (low_id, high_id, us) VALUES (?, ?, ?)", (*ends, plateau.us))
                news, shapes, seen = self._read(self._seen)
            return self._accept(news, shapes, seen)

    def note(self, shape: LayerShape, us: float) -> None:
        """Commit one reading of a visit that is not finished."""
        if self.read_only:
            raise TableError(f"The latency table {self.path} was opened read-only; open it for writing to add to it.")
        with _one_sentence(self.path), _transaction(self._db, "BEGIN IMMEDIATE"):
            self._db.execute("INSERT INTO reading (shape_id, us) VALUES (?, ?)", (self._shape_id(shape), us))

    def readings(self, shape: LayerShape) -> tuple[float, ...]:
        """Of a visit that is not finished, by any process."""
        with _one_sentence(self.path):
            return tuple(us for (us,) in self._db.execute(_READ_READINGS, shape_row(shape)))

    def complaints(self) -> tuple[str, ...]:
        """What is wrong with the file, one sentence each: SQLite's own checks, and every row that cannot be read."""
        found: list[str] = []
        with _one_sentence(self.path), _transaction(self._db, "BEGIN"):
            found += [row[0] for row in self._db.execute("PRAGMA integrity_check") if row[0] != "ok"]
            found += [f"{row[0]} {row[1]} names no {row[2]}" for row in self._db.execute("PRAGMA foreign_key_check")]
            self._read((0, 0, 0), found)
        return tuple(found)

    def close(self) -> None:
        with _one_sentence(self.path):
            self._db.close()

    def _shape_id(self, shape: LayerShape) -> int:
        row = shape_row(shape)
        self._db.execute(_INSERT_SHAPE, row)
        return int(self._db.execute(_FIND_SHAPE, row).fetchone()[0])

    def _read(
        self, seen: tuple[int, int, int], complaints: list[str] | None = None
    ) -> tuple[News, dict[int, LayerShape], tuple[int, int, int]]:
        """The rows behind `seen`; one that cannot be read is an error, or one complaint where those are collected."""
        shapes: dict[int, LayerShape] = {}
        samples: list[LatencySample] = []
        held: list[HeldPlateau] = []

        def shape_of(row_id: int) -> LayerShape:
            return shapes[row_id] if row_id in shapes else self._shapes[row_id]

        shape_id, sample_id, held_id = seen
        for shape_id, *row in self._db.execute(_READ_SHAPES, seen[:1]):
            with _naming(self.path, f"shape {shape_id}", complaints):
                shapes[shape_id] = shape_from_row(row)
        for sample_id, of, *row in self._db.execute(_READ_SAMPLES, seen[1:2]):
            with _naming(self.path, f"sample {sample_id}", complaints):
                samples.append(sample_from_row(shape_of(of), row))
        for held_id, low, high, us in self._db.execute(_READ_HELD, seen[2:]):
            with _naming(self.path, f"held plateau {held_id}", complaints):
                held.append(HeldPlateau(low=shape_of(low), high=shape_of(high), us=us))
        return News(samples=tuple(samples), held=tuple(held)), shapes, (shape_id, sample_id, held_id)

    def _accept(self, news: News, shapes: dict[int, LayerShape], seen: tuple[int, int, int]) -> News:
        """Only after the commit: a failed transaction leaves this object as it was."""
        self._shapes.update(shapes)
        self._seen = seen
        return news


def _connect(path: Path, read_only: bool) -> sqlite3.Connection:
    """Beside a file it has open SQLite keeps two more, which the last connection that may write removes. Reading where
    nothing can be written does without them, unless a writer left some: then they hold rows of their own."""
    address = path.absolute().as_uri()
    if not read_only:
        return _connection(f"{address}?mode=rwc")
    if os.access(path, os.W_OK) and os.access(path.parent, os.W_OK):
        connection = _connection(f"{address}?mode=rw")
        connection.execute("PRAGMA query_only = ON")
        return connection
    return _connection(f"{address}?mode=ro" if log_of(path).exists() else f"{address}?mode=ro&immutable=1")


def _connection(address: str) -> sqlite3.Connection:
    return sqlite3.connect(address, uri=True, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)


def _migrate(connection: sqlite3.Connection, path: Path, environment: Environment | None) -> None:
    """Create or upgrade in one transaction under the rollback journal, then go over to the write-ahead log.

    The log makes a commit cheap and safe against kill -9 without a flush to the disk each; where the file system
    cannot have one, the rollback journal stays and is as safe, only slower.
    """
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA synchronous = NORMAL")
    with _transaction(connection, "BEGIN IMMEDIATE"):
        version = _pragma(connection, "user_version")
        refuse_newer(path, version)
        for migration in MIGRATIONS[version:]:
            for statement in migration:
                connection.execute(statement)
        if version == 0 and environment is not None:
            connection.execute(
                "INSERT INTO environment (id, json, created_utc) VALUES (1, ?, ?)",
                (environment_text(environment), utc_now()),
            )
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        if version < len(MIGRATIONS):
            connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
    try:
        connection.execute("PRAGMA journal_mode = WAL").fetchone()
    except sqlite3.OperationalError as error:
        if "locked" not in str(error):
            raise  # else: another process is in the middle of the same change


def _check(connection: sqlite3.Connection, path: Path) -> Environment:
    version = _pragma(connection, "user_version")
    refuse_newer(path, version)
    if version < len(MIGRATIONS):
        raise TableError(
            f"{path} has table version {version}, older than {len(MIGRATIONS)}; open it once for writing to upgrade it."
        )
    row = connection.execute("SELECT json FROM environment").fetchone()
    if row is None:
        raise FormatError(f"{path} does not say in which environment it was measured. Measure it again.")
    return environment_from(json.loads(row[0]), str(path))


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    return int(connection.execute(f"PRAGMA {name}").fetchone()[0])


@contextmanager
def _transaction(connection: sqlite3.Connection, begin: str) -> Iterator[None]:
    connection.execute(begin)
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


@contextmanager
def _naming(path: Path, what: str, complaints: list[str] | None) -> Iterator[None]:
    try:
        yield
    except (ValueError, LookupError, TypeError, TailpruneError) as error:
        sentence = f"{what} cannot be read ({error or type(error).__name__})"
        if complaints is None:
            raise FormatError(
                f"{path}: {sentence}. Restore it from a copy; `tailprune table check` lists all such rows."
            ) from error
        complaints.append(sentence)


@contextmanager
def _one_sentence(path: Path) -> Iterator[None]:
    """SQLite's errors in our words. Nothing here is retried: the transaction was rolled back, the file is as it was."""
    try:
        yield
    except sqlite3.ProgrammingError as error:
        raise TableError(f"The latency table {path} is closed; open it again.") from error
    except sqlite3.OperationalError as error:
        raise TableError(
            f"Cannot use {path}: {error}. What was added before is safe; mend the cause (space, permission, lock) and run again."
        ) from error
    except (sqlite3.DatabaseError, json.JSONDecodeError) as error:
        raise FormatError(f"{path} is corrupt: {error}. Restore it from a copy, or measure it again.") from error
