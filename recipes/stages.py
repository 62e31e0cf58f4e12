"""Steps of a long recipe as people like to watch them: a bar while it runs, one line when it is done."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn


class Stages:
    """Numbers the steps and times them. Bars only where there is a terminal; the lines always."""

    class Step:
        def __init__(self, bar: Progress, task: TaskID) -> None:
            self._bar, self._task, self.said = bar, task, ""

        def progress(self, done: int, total: int, what: str = "") -> None:
            self._bar.update(self._task, completed=done, total=max(total, done), what=what)

        def say(self, line: str) -> None:
            """The step's one line of result."""
            self.said = line

    def __init__(self, console: Console, total: int) -> None:
        self.console, self.total, self.done = console, total, 0

    @contextmanager
    def step(self, name: str) -> Iterator[Stages.Step]:
        self.done += 1
        began = time.time()
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TimeElapsedColumn(),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[what]}"),
        )
        title = f"[{self.done}/{self.total}] {name}"
        with Progress(*columns, console=self.console, transient=True, disable=not self.console.is_terminal) as bar:
            step = Stages.Step(bar, bar.add_task(title.replace("[", "\\["), total=None, what=""))
            yield step
        self.console.print(
            f"{title}: {step.said}  ({time.time() - began:.1f} s)", highlight=False, markup=False, soft_wrap=True
        )
