"""The page on wrapping runs as it is printed, and so do the examples in the docstrings."""

from __future__ import annotations

import doctest
import re
from pathlib import Path
from types import ModuleType

import pytest

from tailprune.pruning import importance, prune, wrap

PAGE = Path(__file__).parents[3] / "docs" / "wrap-your-pipeline.md"


def test_the_page_runs_from_top_to_bottom(capsys: pytest.CaptureFixture[str]) -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) >= 4
    namespace: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), namespace)
    assert "planned" in capsys.readouterr().out


@pytest.mark.parametrize("module", [importance, prune, wrap])
def test_docstring_examples(module: ModuleType) -> None:
    results = doctest.testmod(module)
    assert results.attempted
    assert not results.failed
