"""Every python block of these pages runs as it is printed, in order, in one namespace, in an empty folder.

A block that cannot run everywhere (a GPU, files of the reader) is marked ```python no-run and only has to compile.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

REPOSITORY = Path(__file__).resolve().parents[3]
#: page -> the fewest blocks it must have
PAGES = {"docs/wrap-your-pipeline.md": 8, "docs/doctor.md": 1, "docs/quickstart.md": 3, "README.md": 1}


def blocks_of(page: str, text: str, info: str = "python") -> list[tuple[str, str]]:
    """(place, code) of every fenced block with this info string; places count lines, for tracebacks."""
    found = re.finditer(rf"^```{info}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [(f"{page}:{text[: m.start()].count(chr(10)) + 2}", m[1]) for m in found]


def run(blocks: list[tuple[str, str]]) -> dict[str, object]:
    namespace: dict[str, object] = {"__name__": "__main__"}
    for place, code in blocks:
        exec(compile(code, place, "exec"), namespace)
    return namespace


@pytest.mark.parametrize("page", PAGES)
def test_the_blocks_of_a_page_run_in_order(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (REPOSITORY / page).read_text(encoding="utf-8")
    blocks = blocks_of(page, text)
    assert len(blocks) >= PAGES[page], f"{page} has {len(blocks)} python blocks"
    assert len(blocks) + len(blocks_of(page, text, "python no-run")) == len(
        re.findall(r"^```py", text, re.MULTILINE)
    ), f"{page} has python blocks that nobody runs; open them with ```python"
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    run(blocks)


@pytest.mark.parametrize("page", PAGES)
def test_blocks_that_do_not_run_here_compile(page: str) -> None:
    for place, code in blocks_of(page, (REPOSITORY / page).read_text(encoding="utf-8"), "python no-run"):
        compile(code, place, "exec")


def test_the_gate_can_fail() -> None:
    text = "a page\n\n```python\nx = 1\n```\nand\n```python\nassert x == 2\n```\n"
    blocks = blocks_of("page.md", text)
    assert [place for place, _ in blocks] == ["page.md:4", "page.md:8"]
    with pytest.raises(AssertionError):
        run(blocks)
