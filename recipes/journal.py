"""What a run leaves behind for people: what it was, and how it went, epoch by epoch."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from recipes.progress import EpochReport


class Journal:
    """`metrics.csv`, and TensorBoard events where TensorBoard is installed, in one folder. Started again, it goes on."""

    def __init__(self, folder: Path, about: dict[str, Any]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.metrics = folder / "metrics.csv"
        (folder / "run.json").write_text(json.dumps(about, indent=1) + "\n")
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            self.board = None
        else:
            self.board = SummaryWriter(str(folder / "tensorboard"))

    def stage(self, name: str, also: Callable[[EpochReport], None] | None = None) -> Callable[[EpochReport], None]:
        """What `finetune` calls after each epoch of this stage."""

        def write(report: EpochReport) -> None:
            values = {"loss": report.loss, "accuracy": report.accuracy.share}
            fresh = not self.metrics.exists()
            with self.metrics.open("a", newline="") as file:
                writer = csv.writer(file, lineterminator="\n")
                if fresh:
                    writer.writerow(["stage", "epoch", *values])
                writer.writerow([name, report.epoch, *values.values()])
            if self.board is not None:
                for what, value in values.items():
                    self.board.add_scalar(f"{name}/{what}", value, report.epoch)
                self.board.flush()
            if also is not None:
                also(report)

        return write
