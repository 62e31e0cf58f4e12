"""What is needed to run something again: its config with the seed, versions, commit, command."""

from __future__ import annotations

import dataclasses
import platform
import subprocess
import sys
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("tailprune", "torch", "torchvision", "torch-pruning", "numpy", "safetensors")


def about_run(config: object) -> dict[str, Any]:
    """Plain values, ready for JSON; `config` is any frozen config of recipes.configs."""
    return {
        "config": dataclasses.asdict(config),  # type: ignore[call-overload]
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}},
        "commit": _commit(),
        "command": " ".join(sys.argv),
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


@cache
def _commit() -> str:
    root = Path(__file__).resolve().parents[1]
    told = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=root, capture_output=True, text=True, check=False
    )
    return told.stdout.strip() or "unknown"
