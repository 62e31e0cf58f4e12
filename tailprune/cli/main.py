"""`tailprune`: the verbs, and what every one of them does with an error."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer
from rich.markup import escape

from .. import __version__
from ..core.errors import NoPlan, TailpruneError, UnstableMeasurement
from . import calibrate, doctor, measure, plan, prune, steps, survey, table
from .console import err

#: Exit codes: 0 done, 1 a TailpruneError, 2 usage (typer), 3 no plan fits, 4 unstable under --strict, 130 interrupted.
_EXIT = {NoPlan: 3, UnstableMeasurement: 4}

app = typer.Typer(
    name="tailprune",
    help="Find where a network's latency jumps with its channel counts, and prune onto those steps.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"tailprune {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Measure staircases, plan widths, prune."""


app.command("measure")(measure.measure)
app.command("steps")(steps.steps)
app.command("plan")(plan.plan)
app.command("prune")(prune.prune)
app.command("survey")(survey.survey)
app.command("doctor")(doctor.doctor)
app.command("calibrate")(calibrate.calibrate)
app.add_typer(table.app, name="table")


def main() -> None:
    """The console script: one sentence and the right exit code, never a traceback for a foreseen error."""
    try:
        app()
    except TailpruneError as error:
        err.print(f"[red]error:[/red] {escape(str(error))}", highlight=False, soft_wrap=True)
        sys.exit(next((code for kind, code in _EXIT.items() if isinstance(error, kind)), 1))
    except KeyboardInterrupt:
        err.print("interrupted; what was measured is kept, run the same command again to go on", highlight=False)
        sys.exit(130)
    except BrokenPipeError:  # `tailprune ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
