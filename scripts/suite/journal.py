"""What a run has found so far: one JSON line for each finished stage, so that a killed run goes on after the last one."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any


class Journal:
    """An append-only file of {"stage": name, ...}. A line that a kill cut short is dropped and its stage run again."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.entries: dict[str, dict[str, Any]] = {}
        if path.exists():
            whole = path.read_bytes()
            lines = whole[: whole.rfind(b"\n") + 1]
            if len(lines) < len(whole):
                os.truncate(path, len(lines))
            self.entries = {entry["stage"]: entry for entry in map(json.loads, lines.splitlines())}

    def of(self, kind: str) -> Iterator[dict[str, Any]]:
        """Finished stages of one kind (the first word of their names) that did not fail, in the order they ended."""
        return (e for name, e in self.entries.items() if name.split()[0] == kind and "error" not in e)

    def append(self, stage: str, body: Mapping[str, Any]) -> None:
        entry = {"stage": stage, **body}
        with self.path.open("a") as file:
            file.write(json.dumps(entry, allow_nan=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self.entries[stage] = entry
