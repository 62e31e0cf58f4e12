"""Ragged networks are what pruning makes: training them must not corrupt memory."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
TRAIN = """
import torch
from recipes.configs import FinetuneConfig
from recipes.data import ImageSet
from recipes.finetune import finetune
from recipes.models.cifar_resnet import EverySecondPixel
from torch import nn

for ins, outs, stride in ((7, 7, 2), (8, 33, 2), (14, 26, 2), (7, 7, 1), (10, 58, 1), (14, 26, 1)):
    torch.manual_seed(0)
    narrow = nn.Identity() if stride == 2 else EverySecondPixel()
    net = nn.Sequential(
        nn.Conv2d(3, ins, 3, padding=1, bias=False), nn.BatchNorm2d(ins), nn.ReLU(), narrow,
        nn.Conv2d(ins, outs, 1, stride=stride, bias=False), nn.BatchNorm2d(outs), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(outs, 4),
    )
    pixels, labels = torch.randint(0, 255, (54, 3, 32, 32), dtype=torch.uint8), torch.arange(54) % 4
    images = ImageSet(name="noise", classes=tuple("abcd"), train_images=pixels, train_labels=labels,
                      test_images=pixels, test_labels=labels)
    finetune(net, images, FinetuneConfig(epochs=3, batch=25, learning_rate=0.01))
print("survived")
"""


def test_training_ragged_shortcuts_survives():
    """In a process of its own: channels-last gradients of these shapes crashed it (PyTorch 2.15 on CPUs)."""
    done = subprocess.run([sys.executable, "-c", TRAIN], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, f"exit {done.returncode}: {done.stderr[-400:]}"
    assert "survived" in done.stdout
