"""Every setting of training, in one frozen value that is written beside each result."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Literal

from recipes.errors import RecipeError

PRECISIONS = ("float32", "bfloat16", "float16")


@dataclass(frozen=True, slots=True, kw_only=True)
class FinetuneConfig:
    """How `finetune` trains. The defaults are He et al. 2016's for CIFAR, with label smoothing (Szegedy et al. 2016)."""

    epochs: int = 40
    batch: int = 128
    learning_rate: float = 0.1  # peak, reached after the warm-up
    warmup_epochs: float = 1.0
    momentum: float = 0.9
    weight_decay: float = 5e-4  # on weights of convolutions and linear layers only
    label_smoothing: float = 0.1
    clip_norm: float = 5.0
    shift: int = 4  # random crop over a border of this many pixels
    ema_decay: float = 0.0  # 0: no averaging of weights
    distill_weight: float = 0.0  # share of the loss that asks for the teacher's answers
    distill_temperature: float = 4.0
    recalibrate_batches: int = 0  # before training: norms estimated afresh on this many batches
    precision: str = "float32"  # bfloat16 and float16: autocast, the latter with scaled gradients
    compile: bool = False  # torch.compile
    seed: int = 0

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise RecipeError(f"precision must be one of {', '.join(PRECISIONS)}, got {self.precision!r}.")
        for name, low, high in (
            ("epochs", 1, math.inf),
            ("batch", 2, math.inf),
            ("learning_rate", 0, math.inf),
            ("warmup_epochs", 0, math.inf),
            ("momentum", 0, 1),
            ("weight_decay", 0, math.inf),
            ("label_smoothing", 0, 1),
            ("clip_norm", 1e-9, math.inf),
            ("shift", 0, math.inf),
            ("ema_decay", 0, 0.999999),
            ("distill_weight", 0, 1),
            ("distill_temperature", 1e-9, math.inf),
            ("recalibrate_batches", 0, math.inf),
        ):
            value = getattr(self, name)
            if not (math.isfinite(value) and low <= value <= high):
                raise RecipeError(f"{name} must lie in {low}..{high}, got {value!r}.")


#: A small network on the digits, from random weights: over 95 % in under a minute on two cores.
TRAIN_DIGITS = FinetuneConfig(epochs=7, batch=32, learning_rate=0.05, warmup_epochs=1, shift=2)
#: The same network after pruning at ratio 0.45: 97.2 to 97.8 % over three seeds (dense 98.6 %), 10 s of one core.
FINETUNE_DIGITS = FinetuneConfig(
    epochs=3, batch=32, learning_rate=0.03, warmup_epochs=0.25, shift=2, recalibrate_batches=8
)
#: CIFAR-10 from random weights, and after pruning (the published fine-tunes of pruned ResNets use 40 to 100 epochs).
TRAIN_CIFAR10 = FinetuneConfig(epochs=160)
FINETUNE_CIFAR10 = FinetuneConfig(
    epochs=40, learning_rate=0.02, ema_decay=0.999, distill_weight=0.5, recalibrate_batches=50
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunConfig:
    """One road from a dense network to a pruned one, complete: which network, how it is pruned, how it is trained."""

    name: str
    model: str  # a name in recipes.models.catalog
    side: int = 32  # pixels
    dense: FinetuneConfig | None = None  # how the dense network is trained; None: it must be given
    tune: FinetuneConfig = FINETUNE_CIFAR10
    importance: str = "taylor"  # a criterion in recipes.hosts
    global_ranking: bool = True  # channels of all layers ranked together, else layer by layer
    ratio: float = 0.5  # share of channels that the host removes in all
    steps: int = 1  # 1: one-shot; more: iterative, each step fine-tuned
    goal: Literal["faster", "better"] = "better"  # of tailprune
    reach: int = 1  # step edges a group may move
    sparse: FinetuneConfig | None = None  # training with the host's regulariser before pruning; for bn_scale
    latency_batch: int = 32  # images per call that the plan is made for
    latency_dtype: str | None = None  # what the network is deployed in; None: float16 on CUDA, float32 on a CPU
    precision: float = 0.02  # half-width of a median at which a shape has settled, as a share
    most_visits: int = 25  # of a shape that does not settle
    score_batches: int = 16  # of tune.batch images, for taylor
    only_images: int | None = None  # of the training and of the test images; for short forms

    def __post_init__(self) -> None:
        for name, low, high in (
            ("ratio", 0, 0.99),
            ("steps", 1, 100),
            ("reach", 1, 100),
            ("latency_batch", 1, 65_536),
            ("most_visits", 6, 1000),
        ):
            if not low <= getattr(self, name) <= high:
                raise RecipeError(f"{name} must lie in {low}..{high}, got {getattr(self, name)!r}.")
        if self.goal not in ("faster", "better"):
            raise RecipeError(f"goal must be faster or better, got {self.goal!r}.")
        if self.latency_dtype not in (None, *PRECISIONS):
            raise RecipeError(f"latency_dtype must be one of {', '.join(PRECISIONS)}, got {self.latency_dtype!r}.")

    def deployed_dtype(self, device: str) -> str:
        """What the pruned network is planned for and measured in on this kind of device."""
        return self.latency_dtype or ("float16" if device == "cuda" else "float32")

    def ratio_of_step(self) -> float:
        """Of what is left before each step, the share that goes, so that after all steps `ratio` is gone."""
        return 1 - (1 - self.ratio) ** (1 / self.steps)

    def shortened(self, *, images: int, epochs: int = 1) -> RunConfig:
        """To see a road end to end in minutes on a CPU, in small batches; its accuracy says nothing about the method."""

        def brief(config: FinetuneConfig) -> FinetuneConfig:
            return dataclasses.replace(
                config, epochs=epochs, warmup_epochs=min(0.1, config.warmup_epochs), batch=config.batch // 4,
                learning_rate=config.learning_rate / 4, ema_decay=0.0, recalibrate_batches=8, precision="bfloat16",
            )  # fmt: skip

        return dataclasses.replace(
            self, name=f"{self.name} (short)", dense=self.dense and brief(self.dense), tune=brief(self.tune),
            sparse=self.sparse and brief(self.sparse), only_images=images, score_batches=16,
            latency_batch=min(self.latency_batch, 8), precision=0.1, most_visits=6,
        )  # fmt: skip


RESNET20_CIFAR10 = RunConfig(name="resnet20-cifar10", model="resnet20-cifar", dense=TRAIN_CIFAR10)
#: 40 % of the channels leave about 2.1 times fewer multiply-adds, where DepGraph (arXiv 2301.12900) reports 93.77 %.
RESNET56_CIFAR10 = RunConfig(
    name="resnet56-cifar10", model="resnet56-cifar", dense=TRAIN_CIFAR10, ratio=0.4,
    tune=dataclasses.replace(FINETUNE_CIFAR10, epochs=100),
)  # fmt: skip
MOBILENETV2_CIFAR10 = RunConfig(
    name="mobilenetv2-cifar10", model="mobilenet-v2-cifar", dense=dataclasses.replace(TRAIN_CIFAR10, weight_decay=4e-5)
)
#: Goyal et al. 2017 (arXiv 1706.02677): 0.1 per 256 images, five epochs of warm-up, weight decay 1e-4.
FINETUNE_IMAGENET = FinetuneConfig(
    epochs=90, batch=256, learning_rate=0.02, warmup_epochs=1, weight_decay=1e-4, ema_decay=0.9999, distill_weight=0.5,
    recalibrate_batches=50, precision="bfloat16",
)  # fmt: skip
RESNET50_IMAGENET = RunConfig(
    name="resnet50-imagenet",
    model="resnet50",
    side=224,
    tune=FINETUNE_IMAGENET,
    latency_batch=64,
)
MOBILENET_IMAGENET = RunConfig(
    name="mobilenet-imagenet", model="mobilenet-v2", side=224, ratio=0.3, latency_batch=64,
    tune=dataclasses.replace(FINETUNE_IMAGENET, weight_decay=4e-5),
)  # fmt: skip
RUNS = {
    run.name: run
    for run in (RESNET20_CIFAR10, RESNET56_CIFAR10, MOBILENETV2_CIFAR10, RESNET50_IMAGENET, MOBILENET_IMAGENET)
}
