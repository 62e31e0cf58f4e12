"""The written format is the real one: the example runs, every column and every version is described."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tailprune.tables.exchange import COLUMNS
from tailprune.tables.rows import SAMPLE_COLUMNS, SHAPE_COLUMNS
from tailprune.tables.schema import APPLICATION_ID, MIGRATIONS

TEXT = (Path(__file__).parents[3] / "docs" / "table-format.md").read_text(encoding="utf-8")


def test_the_example_prints_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    example = re.search(r"```python\n(.*?)```", TEXT, re.DOTALL)
    assert example
    exec(compile(example[1], "table-format.md", "exec"), {})
    assert capsys.readouterr().out == "40.5 measured\nheld\n"


def test_every_column_and_version_is_described() -> None:
    for column in (*SHAPE_COLUMNS, *SAMPLE_COLUMNS, *(c for c in COLUMNS if c not in SHAPE_COLUMNS)):
        assert f"`{column}`" in TEXT, f"docs/table-format.md does not describe {column}"
    history = TEXT.partition("### History")[2].partition("\n## ")[0]
    versions = [int(version) for version in re.findall(r"^\| (\d+) \|", history, re.MULTILINE)]
    assert versions == list(range(1, len(MIGRATIONS) + 1)), "each schema version needs its line in the history"
    assert hex(APPLICATION_ID) in TEXT
