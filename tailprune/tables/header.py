"""Is this file a latency table? Answered from its first bytes, before SQLite opens (and might touch) it."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from ..core.errors import FormatError, TableError
from .schema import APPLICATION_ID, MIGRATIONS

#: Offsets in the first 100 bytes of every SQLite file (https://sqlite.org/fileformat.html#the_database_header).
_MAGIC, _PAGE_SIZE, _PAGE_COUNT, _USER_VERSION, _APPLICATION_ID = b"SQLite format 3\x00", 16, 28, 60, 68


def inspect_file(path: Path) -> bool:
    """True for a table still to be created. Refuses what is no table from its bytes, before SQLite touches it."""
    if path.is_symlink() and not path.exists():
        raise TableError(f"{path} is a symlink to {os.readlink(path)}, which does not exist. Remove it, or mend it.")
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        if not path.parent.is_dir():
            raise TableError(f"Cannot create {path}: the folder {path.parent} does not exist. Make it first.") from None
        return True
    except OSError as error:
        raise TableError(f"Cannot read {path}: {error.strerror or error}.") from error
    if not stat.S_ISREG(mode):
        what = "a directory" if stat.S_ISDIR(mode) else "not a regular file"
        raise FormatError(f"{path} is {what}; a latency table is one file. Name the file, for example {path.name}.db.")
    try:
        with path.open("rb") as file:
            header = file.read(100)
    except OSError as error:
        raise TableError(f"Cannot read {path}: {error.strerror or error}.") from error
    if not header:
        return True
    _inspect_header(path, header)
    return False


def _inspect_header(path: Path, header: bytes) -> None:
    if not header.startswith(_MAGIC):
        raise FormatError(
            f"{path} is not a latency table: it is no SQLite file. `tailprune table import` reads CSV into a table."
        )
    if len(header) < 100:
        raise FormatError(f"{path} is truncated: {len(header)} bytes. Restore it from a copy, or measure it again.")
    if _number(header, _APPLICATION_ID) != APPLICATION_ID:
        raise FormatError(f"{path} is an SQLite database of another program, not a latency table. Choose another file.")
    refuse_newer(path, _number(header, _USER_VERSION))
    page_size = int.from_bytes(header[_PAGE_SIZE : _PAGE_SIZE + 2], "big")
    expected = (65536 if page_size == 1 else page_size) * _number(header, _PAGE_COUNT)
    size = path.stat().st_size
    log = log_of(path)
    if size < expected and not (log.exists() and log.stat().st_size):  # a log may still complete the file
        raise FormatError(
            f"{path} is truncated: {size} of {expected} bytes. Restore it from a copy, or measure it again into a new file."
        )


def _number(header: bytes, offset: int) -> int:
    return int.from_bytes(header[offset : offset + 4], "big")


def log_of(path: Path) -> Path:
    """SQLite's write-ahead log: there while a table is open, and after a kill, when it may hold the newest rows."""
    real = path.resolve()
    return real.with_name(real.name + "-wal")


def refuse_newer(path: Path, version: int) -> None:
    if version > len(MIGRATIONS):
        raise FormatError(
            f"{path} has table version {version}; this tailprune reads up to {len(MIGRATIONS)}. Upgrade tailprune."
        )
