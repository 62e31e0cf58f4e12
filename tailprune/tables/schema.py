"""The schema of a table and its history: each migration takes a file from one version to the next."""

from __future__ import annotations

from .rows import INTEGER_COLUMNS, SHAPE_COLUMNS

#: "tail" in ASCII: tells our files from every other SQLite file (https://sqlite.org/pragma.html#pragma_application_id).
APPLICATION_ID = 0x7461696C

_SHAPE_COLUMNS = ",\n    ".join(
    f"{name} {'INTEGER' if name in INTEGER_COLUMNS else 'TEXT'} NOT NULL" for name in SHAPE_COLUMNS
)

#: MIGRATIONS[v] are the statements that take version v to v + 1, run in one transaction. Never edited, only appended to.
MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        "CREATE TABLE environment (id INTEGER PRIMARY KEY CHECK (id = 1), json TEXT NOT NULL, created_utc TEXT NOT NULL)",
        f"CREATE TABLE shape (\n    id INTEGER PRIMARY KEY,\n    {_SHAPE_COLUMNS},\n    UNIQUE ({', '.join(SHAPE_COLUMNS)})\n)",
        """CREATE TABLE sample (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    shape_id INTEGER NOT NULL REFERENCES shape (id),
    times_us TEXT NOT NULL,
    warmups INTEGER NOT NULL,
    utc TEXT NOT NULL,
    flags TEXT NOT NULL,
    note TEXT NOT NULL
)""",
        """CREATE TABLE held (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    low_id INTEGER NOT NULL REFERENCES shape (id),
    high_id INTEGER NOT NULL REFERENCES shape (id),
    us REAL NOT NULL CHECK (us > 0)
)""",
    ),
    (
        """CREATE TABLE reading (
    id INTEGER PRIMARY KEY,
    shape_id INTEGER NOT NULL REFERENCES shape (id),
    us REAL NOT NULL CHECK (us > 0)
)""",
        "CREATE INDEX reading_of_shape ON reading (shape_id)",
    ),
    (),  # the tables stay; samples may be flagged `afresh`, which an older tailprune does not know
)
