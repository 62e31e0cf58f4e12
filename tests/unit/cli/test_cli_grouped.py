"""Verbs that take dataclasses: what typer sees, and what the verb gets."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from tailprune.cli import doctor, measure, plan, prune, steps
from tailprune.cli.grouped import grouped


@dataclass(frozen=True, kw_only=True)
class Sizes:
    rows: Annotated[int, typer.Option("--rows", "-r", help="How many.")]
    columns: Annotated[int, typer.Option(min=1)] = 2
    label: Annotated[str | None, typer.Option(rich_help_panel="Words")] = None


@dataclass(frozen=True, kw_only=True)
class Ink:
    dark: Annotated[bool, typer.Option("--dark")] = False


Seen = tuple[Sizes, Ink, Path | None]


@pytest.fixture
def drawn() -> tuple[typer.Typer, list[Seen]]:
    seen: list[Seen] = []

    @grouped
    def draw(*, sizes: Sizes, save_to: Annotated[Path | None, typer.Option("--out", "-o")] = None, ink: Ink) -> None:
        """Draw a table."""
        seen.append((sizes, ink, save_to))

    app = typer.Typer()
    app.command()(draw)
    return app, seen


@pytest.mark.parametrize(
    ("args", "got"),
    [
        ("-r 3", (Sizes(rows=3), Ink(), None)),
        ("--rows 3 --columns 5 --label x --dark", (Sizes(rows=3, columns=5, label="x"), Ink(dark=True), None)),
        ("--dark -o p.txt -r 1", (Sizes(rows=1), Ink(dark=True), Path("p.txt"))),
    ],
)
def test_values_come_back_packed(drawn, args, got):
    app, seen = drawn
    ran = CliRunner().invoke(app, args.split())
    assert ran.exit_code == 0, ran.output
    assert seen == [got]


@pytest.mark.parametrize("args", ["", "--columns 4", "-r x", "-r 1 --columns 0", "-r 1 --sizes 2", "-r 1 --no-such"])
def test_wrong_usage_stays_wrong_usage(drawn, args):
    app, seen = drawn
    assert CliRunner().invoke(app, args.split()).exit_code == 2
    assert seen == []


def test_help_keeps_names_panels_and_the_docstring(drawn):
    text = CliRunner().invoke(drawn[0], ["--help"]).output
    assert all(word in text for word in ("Draw a table.", "--rows", "-r", "How many.", "--dark", "--out", "Words"))
    assert "--sizes" not in text and "--ink" not in text


def test_options_keep_the_order_of_the_verb():
    @grouped
    def verb(*, last: int = 0, sizes: Sizes, ink: Ink) -> None: ...

    assert list(inspect.signature(verb).parameters) == ["last", "rows", "columns", "label", "dark"]
    assert all(p.kind is p.KEYWORD_ONLY for p in inspect.signature(verb).parameters.values())


def test_two_options_of_one_name_are_refused():
    with pytest.raises(ValueError, match="rows"):

        @grouped
        def verb(*, sizes: Sizes, rows: int = 0) -> None: ...


@pytest.mark.parametrize("verb", [plan.plan, prune.prune, doctor.doctor, steps.steps, measure.measure])
def test_every_option_of_every_verb_says_what_it_does(verb):
    for name, parameter in inspect.signature(verb).parameters.items():
        (option,) = parameter.annotation.__metadata__
        assert option.help, f"--{name} of {verb.__name__} has no help"
