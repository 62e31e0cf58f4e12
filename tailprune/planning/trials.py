"""What a search has tried, in memory and in a file that outlives it."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

from ..core.artifact import write_text_atomically
from ..core.errors import FormatError
from .space import WidthSpace

LOG_FORMAT, LOG_VERSION = "tailprune-search", 1


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One evaluated network. `score` is None where the evaluation failed, and `error` says how."""

    number: int
    widths: Mapping[str, int]
    latency_us: float
    score: float | None
    error: str = ""

    @property
    def value(self) -> float:
        """The score, minus infinity where there is none."""
        return -math.inf if self.score is None else self.score


@dataclass(frozen=True, kw_only=True)
class SearchResult:
    """Trials in the order they were made, all within the budget. `skipped` candidates gave way to larger ones at no more latency."""

    trials: tuple[Trial, ...]
    budget_us: float
    skipped: int
    utilization: str

    @property
    def failed(self) -> tuple[Trial, ...]:
        return tuple(trial for trial in self.trials if trial.score is None)

    @cached_property
    def best(self) -> Trial | None:
        """The highest score, the faster one of equals; None where every evaluation failed."""
        scored = [trial for trial in self.trials if trial.score is not None]
        return max(scored, key=lambda trial: (trial.value, -trial.latency_us), default=None)

    @property
    def best_after(self) -> tuple[float, ...]:
        """The best score after 1, 2, ... evaluations; minus infinity before the first that did not fail."""
        found, best = [], -math.inf
        for trial in self.trials:
            best = max(best, trial.value)
            found.append(best)
        return tuple(found)

    @property
    def front(self) -> tuple[Trial, ...]:
        """Networks of which no other trial is both faster and better, fastest first."""
        front: list[Trial] = []
        for trial in sorted(self.trials, key=lambda t: (t.latency_us, -t.value)):
            if trial.score is not None and (not front or trial.value > front[-1].value):
                front.append(trial)
        return tuple(front)


class TrialLog:
    """Trials as lines of JSON under a header that names the search; a line that a kill tore off is forgotten."""

    def __init__(self, path: Path | None, known: list[Trial]) -> None:
        self._path, self._known, self._written = path, known, len(known)

    @classmethod
    def open(cls, path: str | os.PathLike[str] | None, space: WidthSpace, origin: str, **settings: object) -> TrialLog:
        """The log of this very search, begun where there is none; FormatError for one of another search."""
        if path is None:
            return cls(None, [])
        said = [space.graph.fingerprint, {g: list(c) for g, c in space.choices.items()}, origin, settings]
        search = hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:16]
        header = json.dumps({"format": LOG_FORMAT, "version": LOG_VERSION, "search": search})
        target = Path(path)
        lines = (
            target.read_text(encoding="utf-8").split("\n")[:-1] if target.exists() else []
        )  # the last one is whole or torn
        if lines and lines[0] != header:
            raise FormatError(f"{target} is the log of another search. Give the same arguments again, or another file.")
        try:
            known = [Trial(**json.loads(line)) for line in lines[1:]]
        except (ValueError, TypeError) as error:
            raise FormatError(f"{target} has a line that is no trial ({error}). Delete it to begin anew.") from error
        write_text_atomically(target, "\n".join([header, *lines[1:]]) + "\n")
        return cls(target, known)

    def get(self, number: int, widths: Mapping[str, int]) -> Trial | None:
        """What the log knows of this trial; FormatError if it was of another network, which equal arguments rule out."""
        if number >= len(self._known):
            return None
        if self._known[number].widths != widths:
            raise FormatError(
                f"{self._path} tried another network as number {number}: its latencies have changed. Begin anew in another file."
            )
        return self._known[number]

    def add(self, trial: Trial) -> None:
        """Write a new trial down, at once."""
        if self._path is None or trial.number < self._written:
            return
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(trial), allow_nan=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
