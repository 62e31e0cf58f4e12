"""Runs the command line in this process, as the console script does, and hands back what a shell would see."""

import sys
from typing import NamedTuple

import pytest

from tailprune.cli.main import main

TINY = """
import torch
from torch import nn

def build():
    return nn.Sequential(
        nn.Conv2d(3, 24, 3, padding=1, bias=False), nn.BatchNorm2d(24), nn.ReLU(),
        nn.Conv2d(24, 40, 3, padding=1, bias=False), nn.BatchNorm2d(40), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(40, 10),
    )

def other():
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 3))

def flat():
    return nn.Flatten()

def broken():
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.Linear(5, 5))
"""


class Ran(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def tiny(tmp_path):
    """A folder with a small model file in it."""
    (tmp_path / "tiny.py").write_text(TINY)
    return f"{tmp_path / 'tiny.py'}:build"


@pytest.fixture
def cli(monkeypatch, capsys):
    def run(*args):
        monkeypatch.setattr(sys, "argv", ["tailprune", *map(str, args)])
        capsys.readouterr()
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = stop.code or 0
        captured = capsys.readouterr()
        return Ran(code, captured.out, captured.err)

    return run
