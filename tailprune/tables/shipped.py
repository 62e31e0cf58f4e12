"""Is there a measured table for this device in the package itself?"""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterator
from importlib.resources import files
from typing import TYPE_CHECKING

from ..core.environment import Environment
from .exchange import parse_csv, parse_header
from .table import LatencyTable

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable  # Python 3.10 keeps it elsewhere

#: Makers and families that people leave out: "h200" means the "NVIDIA H200".
_LEFT_OUT = frozenset(("nvidia", "geforce", "tesla", "quadro", "amd", "intel", "gpu"))


def shipped_table(device_name: str, *, runtime: str | None = None) -> LatencyTable | None:
    """The table measured on this device that comes with tailprune, in memory; None if there is none.

    The name matches as people write it ("h200", "NVIDIA H200", "rtx-3090"), but only as a whole: "a10" is no A100.
    Where several runtimes were measured, `runtime` chooses; without it the first file by name answers.
    """
    for file, environment in _shipped():
        named = _words(device_name) in (_words(environment.device), _words(file.name.partition(".")[0]))
        if named and runtime in (None, environment.runtime):
            return parse_csv(gzip.decompress(file.read_bytes()).decode("utf-8"), file.name)
    return None


def shipped_environments() -> tuple[Environment, ...]:
    """Where the shipped tables were measured."""
    return tuple(environment for _, environment in _shipped())


def _shipped() -> Iterator[tuple[Traversable, Environment]]:
    folder = files("tailprune").joinpath("data")
    if folder.is_dir():
        for file in sorted(folder.iterdir(), key=lambda file: file.name):
            if file.name.endswith(".csv.gz"):
                with file.open("rb") as raw, gzip.open(raw, "rt", encoding="utf-8") as text:
                    yield file, parse_header(text.readline(), file.name)[1]


def _words(name: str) -> str:
    """Letters and digits only, lower case, without the maker's name."""
    return "".join(word for word in re.findall(r"[a-z0-9]+", name.lower()) if word not in _LEFT_OUT)
