"""What is left of a training run after each epoch, so that an interrupted run goes on where it stopped."""

from __future__ import annotations

import dataclasses
import json
import os
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from recipes.configs import FinetuneConfig
from recipes.errors import RecipeError
from recipes.evaluate import Accuracy
from recipes.provenance import about_run


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochReport:
    """What one epoch brought. `accuracy` is on the test images, of the averaged weights where there are any."""

    epoch: int
    epochs: int
    loss: float
    accuracy: Accuracy


class Progress:
    """One run's state and the file it is kept in (none: nothing is kept)."""

    def __init__(
        self,
        path: str | os.PathLike[str] | None,
        config: FinetuneConfig,
        data: str,
        model: nn.Module,
        average: nn.Module | None,
        optimizer: torch.optim.Optimizer,
        scaler: torch.amp.GradScaler,
    ) -> None:
        self.path = Path(path) if path else None
        self.about = json.dumps(about_run(config))
        self.run = json.dumps({"data": data, **dataclasses.asdict(config)})
        self.parts: dict[str, Any] = {"model": model, "optimizer": optimizer, "scaler": scaler}
        if average is not None:
            self.parts["average"] = average

    def keep(self, reports: tuple[EpochReport, ...]) -> None:
        """Write beside the old state, then rename: a kill in between loses one epoch at most."""
        if self.path is None:
            return
        state = {name: part.state_dict() for name, part in self.parts.items()}
        told = json.dumps([dataclasses.asdict(report) for report in reports])
        part = self.path.with_name(self.path.name + ".part")
        try:
            torch.save({"run": self.run, "about": self.about, "reports": told, **state}, part)
            os.replace(part, self.path)
        except (OSError, RuntimeError) as error:
            part.unlink(missing_ok=True)
            raise RecipeError(f"Cannot keep the training state in {self.path}: {error}.") from error

    def resume(self) -> tuple[EpochReport, ...]:
        """Restore what was kept; the reports of the epochs already done."""
        if self.path is None or not self.path.exists():
            return ()
        start_over = "Delete it to start over, or name another file."
        try:
            kept = torch.load(self.path, map_location="cpu", weights_only=True)
            run, reports = kept["run"], json.loads(kept["reports"])
        except (OSError, RuntimeError, EOFError, KeyError, TypeError, ValueError, pickle.UnpicklingError) as error:
            raise RecipeError(f"{self.path} is no training state, or it is damaged. {start_over}") from error
        if run != self.run:
            mine, theirs = json.loads(self.run), json.loads(run)
            name = next(key for key in {**mine, **theirs} if mine.get(key) != theirs.get(key))
            raise RecipeError(
                f"{self.path} was trained with {name} {theirs.get(name)!r}, now it is {mine.get(name)!r}. {start_over}"
            )
        try:
            for name, part in self.parts.items():
                part.load_state_dict(kept[name])
        except (RuntimeError, ValueError, KeyError) as error:
            raise RecipeError(f"{self.path} holds the state of another network. {start_over}") from error
        return tuple(EpochReport(**{**r, "accuracy": Accuracy(**r["accuracy"])}) for r in reports)
