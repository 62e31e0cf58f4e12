"""What a run leaves behind for people: what it was, and how it went, epoch by epoch."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from recipes.errors import RecipeError
from recipes.progress import EpochReport


class Journal:
    """`metrics.csv`, and TensorBoard events where TensorBoard is installed, in one folder. Started again, it goes on."""

    def __init__(self, folder: Path, about: dict[str, Any]) -> None:
        self.metrics = folder / "metrics.csv"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _refuse_another_run(folder / "run.json", about)
            (folder / "run.json").write_text(json.dumps(about, indent=1) + "\n")
        except OSError as error:
            raise RecipeError(
                f"Cannot write to {folder} ({error.strerror}); name another folder with --out."
            ) from error
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


def _refuse_another_run(path: Path, about: dict[str, Any]) -> None:
    """A folder holds one run: half of it under one config and half under another would be nobody's result."""
    if not path.exists():
        return
    try:
        before, now = json.loads(path.read_text())["config"], json.loads(json.dumps(about["config"]))
        differing = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RecipeError(f"{path} is damaged; delete the folder to start over, or name another with --out.") from error
    if differing:
        raise RecipeError(
            f"{path.parent} holds a run with another {differing[0]} ({before.get(differing[0])!r}, now "
            f"{now.get(differing[0])!r}); name another folder with --out, or delete this one to start over."
        )
