"""Does the training loop learn, repeat itself, resume, distil, average, and stop where it must?"""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch import nn

from recipes.configs import FinetuneConfig
from recipes.distill import RememberedTeacher
from recipes.errors import RecipeError
from recipes.evaluate import Accuracy, evaluate
from recipes.finetune import finetune, learning_rate
from recipes.images import ImageSet, normalize
from recipes.models import CifarResNet
from recipes.norms import recalibrate_norms

CONFIG = FinetuneConfig(epochs=4, batch=8, learning_rate=0.05, warmup_epochs=0.5, shift=0, label_smoothing=0.0)


@pytest.fixture(scope="module")
def images() -> ImageSet:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (16, 3, 8, 8), generator=generator, dtype=torch.uint8)
    labels = torch.arange(16) % 2
    return ImageSet(
        name="tiny",
        classes=("a", "b"),
        train_images=pixels,
        train_labels=labels,
        test_images=pixels,
        test_labels=labels,
        flip=False,
    )


def _network(seed: int = 0) -> CifarResNet:
    torch.manual_seed(seed)
    return CifarResNet((1, 1), (8, 16), shortcut="projection", num_classes=2)


def _same(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def test_it_overfits_a_tiny_batch(images):
    model = _network()
    reports = finetune(model, images, dataclasses.replace(CONFIG, epochs=40, batch=16))
    assert reports[-1].loss < 0.1 < reports[0].loss
    assert reports[-1].accuracy == Accuracy(correct=16, total=16) == evaluate(model, images)
    assert not model.training


def test_equal_seeds_give_equal_weights_and_others_do_not(images):
    first, again, other = _network(), _network(), _network()
    finetune(first, images, CONFIG)
    finetune(again, images, CONFIG)
    finetune(other, images, dataclasses.replace(CONFIG, seed=1))
    assert _same(first, again)
    assert not _same(first, other)


@pytest.mark.parametrize("ema_decay", [0.0, 0.9])
def test_an_interrupted_run_ends_where_an_undisturbed_one_does(images, tmp_path, ema_decay):
    config = dataclasses.replace(CONFIG, ema_decay=ema_decay, recalibrate_batches=1)
    whole = _network()
    told = finetune(whole, images, config)

    def stop(report):
        if report.epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        finetune(_network(), images, config, on_epoch=stop, checkpoint=tmp_path / "run.pt")
    resumed = _network(seed=5)
    assert finetune(resumed, images, config, checkpoint=tmp_path / "run.pt") == told
    assert _same(resumed, whole)
    done = _network(seed=6)
    assert finetune(done, images, config, checkpoint=tmp_path / "run.pt") == told
    assert _same(done, whole)


def test_a_training_state_of_another_run_is_refused(images, tmp_path):
    path = tmp_path / "run.pt"
    config = dataclasses.replace(CONFIG, epochs=1)
    finetune(_network(), images, config, checkpoint=path)
    with pytest.raises(RecipeError, match=r"trained with batch 8, now it is 4"):
        finetune(_network(), images, dataclasses.replace(config, batch=4), checkpoint=path)
    with pytest.raises(RecipeError, match=r"state of another network"):
        finetune(CifarResNet((1, 1), (8, 12), shortcut="projection", num_classes=2), images, config, checkpoint=path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(RecipeError, match=r"damaged\. Delete it to start over"):
        finetune(_network(), images, config, checkpoint=path)
    with pytest.raises(RecipeError, match=r"Cannot keep the training state"):
        finetune(_network(), images, config, checkpoint=tmp_path / "absent" / "run.pt")


def test_a_loss_that_is_no_number_stops_at_once(images):
    model = _network()
    with torch.no_grad():
        model.linear.weight[0, 0] = math.nan
    with pytest.raises(
        RecipeError, match=r"loss became nan in epoch 1, step 1; lower the learning rate \(peak 0\.05\)"
    ):
        finetune(model, images, CONFIG)


def test_a_student_of_pure_distillation_agrees_with_its_teacher(images):
    teacher, student = _network(), _network(seed=1)
    finetune(teacher, images, dataclasses.replace(CONFIG, epochs=20, batch=16))
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    unlabelled = dataclasses.replace(images, train_labels=torch.zeros_like(images.train_labels))
    finetune(student, unlabelled, dataclasses.replace(CONFIG, epochs=30, batch=16, distill_weight=1.0), teacher=teacher)
    assert evaluate(student, images).share == 1.0
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    with pytest.raises(RecipeError, match=r"there is no teacher"):
        finetune(student, images, dataclasses.replace(CONFIG, distill_weight=0.5))


def test_norms_and_biases_are_not_decayed(images):
    plain, decayed = _network(), _network()
    still = dataclasses.replace(CONFIG, epochs=1, momentum=0.0)
    frozen = dataclasses.replace(images, train_images=torch.zeros_like(images.train_images))
    finetune(plain, frozen, dataclasses.replace(still, weight_decay=0.0))
    finetune(decayed, frozen, dataclasses.replace(still, weight_decay=1.0))
    assert decayed.layer2[0].conv1.weight.norm() < plain.layer2[0].conv1.weight.norm()
    assert decayed.bn1.weight.norm() > 0.98 * plain.bn1.weight.norm()


def test_recalibrated_norms_hold_the_statistics_of_the_data(images):
    model = _network()
    model.bn1.running_mean.fill_(100.0)
    recalibrate_norms(model, images, batches=1, batch=16)
    with torch.no_grad():
        seen = model.conv1(normalize(images.train_images))
    torch.testing.assert_close(model.bn1.running_mean, seen.mean((0, 2, 3)), atol=1e-5, rtol=1e-4)
    assert model.bn1.momentum == 0.1
    assert model.training


def test_learning_rate_warms_up_and_ends_at_zero():
    config = FinetuneConfig(epochs=10, learning_rate=0.4, warmup_epochs=2)
    rates = [learning_rate(config, epoch / 10) for epoch in range(101)]
    assert 0 < rates[0] < 0.01
    assert max(rates) == pytest.approx(0.4)
    assert rates.index(max(rates)) == 20
    assert rates[20:] == sorted(rates[20:], reverse=True)
    assert rates[-1] == pytest.approx(0.0)


@pytest.mark.parametrize(
    ("setting", "value"),
    [("epochs", 0), ("batch", 1), ("learning_rate", math.nan), ("momentum", 1.5), ("ema_decay", 1.0), ("clip_norm", 0)],
)
def test_impossible_settings_are_refused_by_name(setting, value):
    with pytest.raises(RecipeError, match=rf"{setting} must lie in"):
        FinetuneConfig(**{setting: value})


def test_accuracy_knows_its_noise():
    good, better, far = (Accuracy(correct=c, total=360) for c in (350, 354, 300))
    assert good.share == pytest.approx(0.9722, abs=1e-4)
    assert good.within_noise_of(better)
    assert not good.within_noise_of(far)
    assert Accuracy(correct=360, total=360).noise > 0
    assert str(good) == "97.22% (350 of 360)"


def test_evaluation_restores_the_mode_and_refuses_nothing_to_evaluate(images):
    model = _network().train()
    evaluate(model, images, batch=3)
    assert model.training
    with pytest.raises(RecipeError, match=r"no test images"):
        evaluate(model, images.tested_on(0))


def test_a_batch_that_does_not_fit_names_one_that_does(images):
    class Small(nn.Module):
        """Memory for four images."""

        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(3 * 8 * 8, 2)

        def forward(self, x):
            if len(x) > 4:
                raise torch.OutOfMemoryError("out of memory")
            return self.head(x.flatten(1))

    with pytest.raises(RecipeError, match=r"batch of 16 does not fit .*; 4 does"):
        finetune(Small(), images, dataclasses.replace(CONFIG, batch=16))


def test_a_diverged_run_keeps_its_last_good_state(images, tmp_path):
    path = tmp_path / "run.pt"

    def spoil(report):
        with torch.no_grad():
            model.linear.weight[0, 0] = math.nan

    model = _network()
    with pytest.raises(RecipeError, match=r"nan in epoch 2, step 1; .* The state after epoch 1 is kept in \S+run\.pt"):
        finetune(model, images, CONFIG, on_epoch=spoil, checkpoint=path)
    resumed = _network(seed=4)
    assert len(finetune(resumed, images, CONFIG, checkpoint=path)) == CONFIG.epochs


def test_a_full_disk_leaves_the_previous_state(images, tmp_path, monkeypatch):
    path = tmp_path / "run.pt"
    finetune(_network(), images, dataclasses.replace(CONFIG, epochs=1), checkpoint=path)
    before = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    path.rename(tmp_path / "kept.pt")
    with pytest.raises(RecipeError, match=r"Cannot keep the training state .*No space left"):
        finetune(_network(), images, CONFIG, checkpoint=path)
    assert (tmp_path / "kept.pt").read_bytes() == before
    assert not path.exists()


def test_a_regulariser_acts_between_gradient_and_step(images):
    sparse, plain = _network(), _network()

    def shrink(model):
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.grad.add_(0.05 * module.weight.sign())

    config = dataclasses.replace(CONFIG, epochs=6, weight_decay=0.0)
    finetune(sparse, images, config, regularize=shrink)
    finetune(plain, images, config)
    assert sparse.bn1.weight.abs().sum() < 0.95 * plain.bn1.weight.abs().sum()


def test_a_remembered_teacher_answers_equal_batches_once(images):
    calls = []

    class Counting(nn.Module):
        def forward(self, x):
            calls.append(len(x))
            return x.flatten(1)[:, :2]

    teacher = RememberedTeacher(Counting())
    a, b = torch.randn(4, 3, 8, 8), torch.randn(4, 3, 8, 8)
    assert torch.equal(teacher(a), teacher(a.clone()))
    assert not torch.equal(teacher(a), teacher(b))
    assert calls == [4, 4]


@pytest.mark.parametrize("precision", ["bfloat16", "float32"])
def test_lower_precision_learns_as_well(images, precision):
    model = _network()
    config = dataclasses.replace(CONFIG, epochs=30, batch=16, precision=precision)
    assert finetune(model, images, config)[-1].accuracy.share == 1.0
    assert model.linear.weight.dtype == torch.float32


def test_unknown_precision_is_refused():
    with pytest.raises(RecipeError, match=r"precision must be one of float32, bfloat16, float16, got 'fp8'"):
        FinetuneConfig(precision="fp8")
