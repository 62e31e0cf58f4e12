"""Where the command line speaks: results on stdout, progress and warnings on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

out = Console(soft_wrap=False)
err = Console(stderr=True)

PANEL = "Output"
Json = Annotated[bool, typer.Option("--json", help="Results as JSON on stdout.", rich_help_panel=PANEL)]


@dataclass(frozen=True, kw_only=True)
class OutputOptions:
    """For whom a verb speaks."""

    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="No progress and no notes on stderr.", rich_help_panel=PANEL)
    ] = False
    json: Json = False


def print_json(body: Mapping[str, Any]) -> None:
    """One JSON object, nothing around it."""
    sys.stdout.write(json.dumps(body, indent=1, allow_nan=False) + "\n")


def warn(text: str, *, quiet: bool = False) -> None:
    if not quiet:
        err.print(f"[yellow]warning:[/yellow] {escape(text)}", highlight=False, soft_wrap=True)


def note(text: str, *, quiet: bool = False) -> None:
    if not quiet:
        err.print(text, highlight=False, markup=False, soft_wrap=True)


@contextmanager
def progress(title: str, *, quiet: bool) -> Iterator[Callable[[int, int, str], None]]:
    """A bar on stderr with time left; yields `report(done, total, what)`."""
    columns = (
        TextColumn("[bold]{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(compact=True),
        TextColumn("{task.fields[what]}"),
    )
    with Progress(*columns, console=err, transient=True, disable=quiet or not err.is_terminal) as bar:
        task = bar.add_task(title, total=None, what="")

        def report(done: int, total: int, what: str = "") -> None:
            bar.update(task, completed=done, total=max(total, done), what=what)

        yield report


@contextmanager
def resumable() -> Iterator[None]:
    """Ctrl-C in long work that keeps what it has: says so, and exits with 130 as shells expect."""
    try:
        yield
    except KeyboardInterrupt:
        err.print("interrupted; what was measured is kept, the same command goes on from here", highlight=False)
        raise typer.Exit(130) from None
