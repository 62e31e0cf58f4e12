"""Do the terminal's tables hold every value, and every name as it is?"""

from __future__ import annotations

import dataclasses

from rich.console import Console

from tailprune.core.plan import GroupChoice
from tailprune.reports import Comparison, comparison_table, facts_table, plan_table, staircase_table
from tailprune.steps import LatencyCurve, detect_steps


def _text(renderable) -> str:
    console = Console(width=220, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(renderable)
    return console.export_text()


def test_plan_table_has_every_group_with_widths_and_reason(plan):
    text = _text(plan_table(plan))
    for choice in plan.choices:
        line = next(line for line in text.splitlines() if line.strip().startswith(choice.group + " "))
        for value in (choice.original, choice.host, choice.width, choice.reason):
            assert str(value) in line.split()
    assert "6 of 6 groups moved" in text
    assert "batch 32, float32, channels_last" in text


def test_plan_table_counts_what_it_leaves_out(plan):
    still = GroupChoice(group="still", original=8, host=8, width=8, kept=tuple(range(8)), reason="host")
    text = _text(plan_table(dataclasses.replace(plan, choices=(*plan.choices, still)), moved_only=True))
    assert "still" not in text
    assert "1 more as the host left it" in text


def test_a_modelled_plan_is_marked(plan):
    assert "~9,820 µs" in _text(plan_table(dataclasses.replace(plan, latency_kind="modelled")))


def test_staircase_table_has_every_plateau_and_its_verdict(staircase):
    text = _text(staircase_table(staircase, title="layer1"))
    for plateau in staircase.plateaus:
        assert f"{plateau.low}..{plateau.high}" in text
        assert plateau.verdict in text
    assert "no usable steps" not in text


def test_a_flat_curve_is_said_to_have_no_usable_steps():
    curve = LatencyCurve(widths=tuple(range(1, 33)), latency_us=(100.0,) * 32, noise_us=(0.5,) * 32)
    assert "no usable steps here" in _text(staircase_table(detect_steps(curve)))


def test_comparison_table_has_every_row_and_admits_what_it_must(comparison):
    text = _text(comparison_table(comparison))
    for row in comparison.rows:
        lines = text.splitlines()
        at = next(i for i, line in enumerate(lines) if line.strip().startswith(row.method + " "))
        line, below = lines[at], lines[at + 1]
        assert f"{row.measured_us:,.0f} ± {row.spread_us:.0f} µs" in line
        assert ("we do not win here" in below) == (row.method == "multiples of 8")
    assert "We do not win against multiples of 8" in " ".join(text.split())


def test_markup_in_names_is_text(plan, comparison):
    odd = "[bold red]x[/] $y_[1]"
    rows = tuple(dataclasses.replace(row, method=odd + row.method, note=odd) for row in comparison.rows)
    assert _text(comparison_table(Comparison(rows=rows))).count("[bold red]x[/]") >= len(rows)
    assert "[bold red]x[/]" in _text(plan_table(dataclasses.replace(plan, model=odd)))
    assert "[bold red]x[/]" in _text(facts_table({odd: odd, "samples": 12345}, title=odd))
    assert "12,345" in _text(facts_table({"samples": 12345}, title="table"))
