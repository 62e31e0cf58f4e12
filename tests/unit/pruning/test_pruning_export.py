from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from pruning_nets import IMAGES, small_net
from test_pruning_apply import planned
from torch import nn

from tailprune.core.errors import FormatError, MissingDependency, TailpruneError
from tailprune.pruning import apply_plan, export_onnx, export_pt2


def test_a_pruned_network_exports_and_agrees(tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    net = small_net()
    pruned = apply_plan(net, planned(net))
    path = tmp_path / "net.onnx"
    difference = export_onnx(pruned, IMAGES, path)
    assert difference is not None
    assert 0 <= difference <= 1e-4
    session = runtime.InferenceSession(str(path))
    images = torch.randn(5, 3, 16, 16)  # another batch size
    got = session.run(None, {"input": images.numpy()})[0]
    assert torch.allclose(torch.from_numpy(got), pruned(images), atol=1e-4)


def test_a_network_that_differs_is_not_written(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")

    class Drifting(nn.Module):
        """Not the same twice: what was exported is not what runs."""

        def __init__(self) -> None:
            super().__init__()
            self.conv, self.calls = nn.Conv2d(3, 4, 3), 0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.calls += 1
            return self.conv(x) + self.calls

    with pytest.raises(TailpruneError, match="differs from PyTorch by"):
        export_onnx(Drifting(), IMAGES, tmp_path / "net.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_missing_library_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(
        MissingDependency, match=r"needs onnxruntime, which is not installed. Run: pip install 'tailprune\[onnx\]'"
    ):
        export_onnx(small_net(), IMAGES, tmp_path / "net.onnx")


def test_a_missing_folder_is_one_sentence(tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    with pytest.raises(FormatError, match="Choose a folder"):
        export_onnx(nn.Conv2d(3, 4, 3), IMAGES, tmp_path / "no" / "net.onnx", check=False)


def test_pt2_round_trip(tmp_path: Path) -> None:
    net = small_net()
    export_pt2(net, IMAGES, tmp_path / "net.pt2")
    images = torch.randn_like(IMAGES)
    assert torch.allclose(torch.export.load(str(tmp_path / "net.pt2")).module()(images), net(images), atol=1e-6)
