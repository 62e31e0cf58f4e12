"""Files that outlive a process: JSON with a format name and a version, written whole or not at all."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .errors import FormatError


def write_text_atomically(path: str | os.PathLike[str], text: str) -> None:
    write_bytes_atomically(path, text.encode())


def write_bytes_atomically(path: str | os.PathLike[str], data: bytes) -> None:
    """Write beside the target, flush to disk, rename: a full disk or a kill leaves the old file as it was."""
    target = Path(path)
    try:
        handle, part = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".part")
    except OSError as error:
        raise FormatError(
            f"Cannot write {target}: {error.strerror or error}. Choose a folder that exists and can be written."
        ) from error
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(part, 0o644)
        os.replace(part, target)
    except OSError as error:
        Path(part).unlink(missing_ok=True)
        raise FormatError(f"Cannot write {target}: {error.strerror or error}. Nothing was changed.") from error
    except BaseException:
        Path(part).unlink(missing_ok=True)
        raise


def write_artifact(path: str | os.PathLike[str], *, format: str, version: int, body: Mapping[str, Any]) -> None:
    write_text_atomically(
        path, json.dumps({"format": format, "version": version, **body}, indent=1, allow_nan=False) + "\n"
    )


def read_artifact(path: str | os.PathLike[str], *, format: str, version: int) -> dict[str, Any]:
    """The body of a file that `write_artifact` wrote; refuses anything else in one sentence."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "it is not UTF-8 text"
        raise FormatError(f"Cannot read {path}: {reason}.") from error
    return parse_artifact(text, format=format, version=version, origin=str(path))


def parse_artifact(text: str, *, format: str, version: int, origin: str) -> dict[str, Any]:
    try:
        body = json.loads(text)
    except ValueError as error:
        raise FormatError(f"{origin} is not valid JSON ({error}); it may be truncated. Write it again.") from error
    if not isinstance(body, dict) or body.get("format") != format:
        got = body.get("format") if isinstance(body, dict) else type(body).__name__
        raise FormatError(f"{origin} is not a {format} file: its format is {got!r}.")
    if not isinstance(body.get("version"), int) or body["version"] > version:
        raise FormatError(
            f"{origin} has {format} version {body.get('version')!r}; this tailprune reads up to {version}. Upgrade tailprune."
        )
    return body
