"""The worked example of docs/doctor.md, and the examples in the docstrings, run."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[3]


def test_the_worked_example_runs() -> None:
    result = doctest.testfile(str(REPOSITORY / "docs" / "doctor.md"), module_relative=False)
    assert result.attempted > 8
    assert result.failed == 0


@pytest.mark.parametrize("module", ["doctor", "changes", "utilization"])
def test_docstring_examples_run(module: str) -> None:
    result = doctest.testmod(importlib.import_module(f"tailprune.survey.{module}"))
    assert result.attempted > 0
    assert result.failed == 0
