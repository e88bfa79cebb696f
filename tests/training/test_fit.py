import contextlib
import csv
import errno
import functools
import json
import math
import os
import pickle
import resource
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from glimpsenet import config as configuration
from glimpsenet.bench.contenders import PPOConfig
from glimpsenet.config import Config
from glimpsenet.data.config import DigitsConfig, FolderConfig
from glimpsenet.data.digits import open_digits
from glimpsenet.errors import SettingError, UserError
from glimpsenet.files import write_aside
from glimpsenet.models.config import AttentionConfig, MipmapConfig, ModelConfig, SamplingConfig
from glimpsenet.policies.config import LinearConfig, PolicyConfig, TokenConfig
from glimpsenet.runs import load_run
from glimpsenet.training import task
from glimpsenet.training.config import ObjectiveConfig, PathwiseConfig, TrainingConfig
from glimpsenet.training.fit import SafeCheckpointIO, fit
from glimpsenet.training.task import GlimpseTask

pytestmark = pytest.mark.filterwarnings("ignore:.*treespec, LeafSpec.*", "ignore:Checkpoint directory .* exists")

MODEL = ModelConfig(
    backbone="glimpse_cnn",
    num_glimpses=2,
    image_size=20,
    glimpse_size=8,
    sampling=MipmapConfig(),
    batch_norm="separate",
)
# 6 steps; validations, and checkpoints, after 2, 4 and 6.
TRAINING = TrainingConfig(
    max_steps=6, batch_size=4, optimizer="adamw", learning_rate=3e-3, precision="float32", validations=3
)
DIGITS = Config(model=MODEL, data=DigitsConfig(train_scenes=64, val_scenes=12), training=TRAINING)
NUMBERS = {"train": 14, "val": 6}


def train(config: Config, out: Path, **settings):
    return fit(config, out, device="cpu", **settings)


def change(config: Config, **settings) -> Config:
    return replace(config, training=replace(config.training, **settings))


def weights(run: Path) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(run / "model.safetensors")


def last(run: Path) -> dict:
    return torch.load(run / "checkpoints/last.ckpt", weights_only=True)


def rows(run: Path) -> list[dict[str, str]]:
    with open(run / "metrics.csv", newline="") as stream:
        return list(csv.DictReader(stream))


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    tensors = [key for key in one if isinstance(one[key], torch.Tensor)]
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in tensors)


def at_step(call, broken):
    """``call``, but the ``at``-th call is ``broken``."""

    def wrap(at: int):
        calls = 0

        @functools.wraps(call)  # Lightning looks at signatures
        def wrapped(*arguments):
            nonlocal calls
            calls += 1
            return broken(*arguments) if calls == at else call(*arguments)

        return wrapped

    return wrap


def fail(*_):
    raise RuntimeError("power cut")


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Config:
    """Photos of two colours, two of them unreadable (which takes ``skip_bad``)."""
    root = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for split, count in NUMBERS.items():
        for name, colour in {"blue": [0, 0, 200], "red": [200, 0, 0]}.items():
            (root / split / name).mkdir(parents=True)
            for index in range(count // 2):
                pixels = (colour + rng.integers(55, size=(24, 30, 3))).astype(np.uint8)
                Image.fromarray(pixels).save(root / split / name / f"{index}.png")
    for bad in ("train/blue/0.png", "val/red/2.png"):
        (root / bad).write_text("no image")
    return Config(model=MODEL, data=FolderConfig(data=root, skip_bad=True), training=TRAINING)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """An uninterrupted run of DIGITS."""
    out = tmp_path_factory.mktemp("runs") / "digits"
    train(DIGITS, out)
    return out


# ---- what a run leaves ---------------------------------------------------------------------------------------------


def test_bfloat16_learns_under_the_clipping_of_the_recipes(tmp_path):
    summary = train(change(DIGITS, precision="bfloat16", gradient_clip=1.0), tmp_path)
    assert summary["steps"] == 6
    assert all(torch.isfinite(value).all() for value in weights(tmp_path).values())


def test_a_run_folder_holds_what_is_documented_and_nothing_else(run):
    assert sorted(os.listdir(run)) == [
        "checkpoints",
        "config.json",
        "localization.csv",
        "metrics.csv",
        "model.safetensors",
        "summary.json",
        "tensorboard",
    ]
    assert sorted(os.listdir(run / "checkpoints")) == ["best.ckpt", "last.ckpt"]
    assert any("tfevents" in name for name in os.listdir(run / "tensorboard"))


def test_config_json_is_the_experiment(run):
    values = json.loads((run / "config.json").read_text())
    assert values.keys() == {"version", "config", "classes", "channels"}
    assert values["classes"] == list("0123456789")
    assert values["channels"] == 1
    assert values["config"]["data"]["kind"] == "digits"
    assert values["config"]["training"]["max_steps"] == 6
    assert configuration.from_dict(values["config"]) == DIGITS


def test_metrics_csv_has_every_step_and_validation_once(run):
    trained = [row for row in rows(run) if row["train/loss"]]
    validated = [row for row in rows(run) if row["val/accuracy_1"]]
    assert [row["step"] for row in trained] == ["1", "2", "3", "4", "5", "6"]
    assert [row["step"] for row in validated] == ["2", "4", "6"]
    assert len(rows(run)) == 9
    for row in trained:
        assert float(row["train/loss"]) > 0
        assert 0 <= float(row["train/accuracy_last"]) <= 1
    rates = [float(row["train/learning_rate"]) for row in trained]
    peak = rates.index(max(rates))
    assert rates[: peak + 1] == sorted(rates[: peak + 1])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
    assert max(rates) <= 3e-3 * (1 + 1e-6)
    for row in validated:
        for name in ("accuracy", "loss", "mean_scale", "hit_rate", "found_rate"):
            assert all(math.isfinite(float(row[f"val/{name}_{step}"])) for step in (1, 2))
        assert float(row["val/mean_scale_1"]) == 1
        assert 0.2 <= float(row["val/mean_scale_2"]) <= 0.5


def test_the_weights_are_those_of_the_first_best_validation(run):
    best = torch.load(run / "checkpoints/best.ckpt", weights_only=True)
    scores = {int(row["step"]): float(row["val/accuracy_2"]) for row in rows(run) if row["val/accuracy_2"]}
    assert best["global_step"] == max(scores, key=scores.get)  # the first of equals
    saved = weights(run)
    assert saved
    for key, value in saved.items():
        assert torch.equal(value, best["state_dict"][f"model.{key}"])


def test_summary_json_says_how_good_the_saved_weights_are(run):
    summary = json.loads((run / "summary.json").read_text())
    assert summary.keys() >= {"metrics", "steps", "seconds", "skipped_images", "seed", "machine"}
    assert (summary["steps"], summary["seed"], summary["skipped_images"]) == (6, 0, [])
    assert summary["machine"].keys() >= {"device", "cpu", "cores", "python", "torch", "torchvision", "timm"}
    model = load_run(run).model
    scenes = open_digits(DIGITS.data, 20, seed=0).val
    samples = [scenes[0, index] for index in range(12)]
    with torch.inference_mode():
        logits = model(model.normalization(torch.stack([sample.image for sample in samples]))).logits
    labels = torch.tensor([sample.label for sample in samples])
    metrics = summary["metrics"]
    assert metrics["num_images"] == 12
    assert metrics["accuracy"] == pytest.approx((logits.argmax(-1) == labels[:, None]).double().mean(0).tolist())
    losses = -logits.log_softmax(-1)[torch.arange(12), :, labels]
    assert metrics["loss"] == pytest.approx(losses.mean(0).tolist(), rel=1e-5)


def test_what_fit_returns_is_the_summary(photos, tmp_path):
    summary = train(change(photos, max_steps=1), tmp_path / "run")
    assert summary == json.loads((tmp_path / "run/summary.json").read_text())


def test_checkpoints_hold_only_plain_values(run):
    for name in ("best", "last"):
        checkpoint = torch.load(run / f"checkpoints/{name}.ckpt", weights_only=True)
        assert all(value.isfinite().all() for value in checkpoint["state_dict"].values())
    assert last(run)["global_step"] == 6


def test_an_unfinished_run_is_read_from_its_checkpoints(run, tmp_path):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "config.json").write_bytes((run / "config.json").read_bytes())
    (tmp_path / "checkpoints/best.ckpt").write_bytes((run / "checkpoints/best.ckpt").read_bytes())
    assert equal(dict(load_run(tmp_path).model.state_dict()), dict(load_run(run).model.state_dict()))


# ---- repeating and resuming ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", ["digits", "photos"])
def test_one_seed_gives_one_run_and_another_seed_another(run, photos, tmp_path, data):
    config = DIGITS if data == "digits" else photos
    if data == "photos":
        run = tmp_path / "first"
        train(config, run)
    train(config, tmp_path / "again")
    train(replace(config, seed=1), tmp_path / "other")
    assert equal(weights(tmp_path / "again"), weights(run))
    assert (tmp_path / "again/metrics.csv").read_bytes() == (run / "metrics.csv").read_bytes()
    assert not equal(weights(tmp_path / "other"), weights(run))


@pytest.mark.parametrize("step", [4, 6])  # nothing since the last checkpoint; a step that is done again
@pytest.mark.parametrize("data", ["digits", "photos", "digits, two passes a batch", "digits, dynamic re-scaling"])
def test_a_run_that_was_cut_short_resumes_bit_for_bit(photos, tmp_path, monkeypatch, data, step):
    config = photos if data == "photos" else DIGITS
    if "passes" in data:  # checkpoints fall between the passes
        tokens = replace(DIGITS, model=replace(MODEL, policy=TokenConfig(layer=1)))
        config = change(tokens, objective=PPOConfig(), diversity=0.2)
    if "re-scaling" in data:  # the gradient factor is another one at every step
        config = change(DIGITS, objective=PathwiseConfig(gradient_share=0.5, large_until=0.9), auxiliary_decay=True)
    train(config, tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr(GlimpseTask, "training_step", at_step(GlimpseTask.training_step, fail)(step))
        with pytest.raises(RuntimeError, match="power cut"):
            train(config, tmp_path / "cut")
    assert last(tmp_path / "cut")["global_step"] == 2 * ((step - 1) // 2)
    assert not (tmp_path / "cut/model.safetensors").exists()
    # What was there is kept even if nobody writes a row again.
    before = [row for row in rows(tmp_path / "cut") if int(row["step"]) <= 2]
    assert len(before) == 3
    train(config, tmp_path / "cut", resume=True)
    assert (tmp_path / "cut/metrics.csv").read_bytes() == (tmp_path / "whole/metrics.csv").read_bytes()
    assert equal(weights(tmp_path / "cut"), weights(tmp_path / "whole"))
    assert equal(last(tmp_path / "cut")["state_dict"], last(tmp_path / "whole")["state_dict"])


def test_a_run_keeps_its_classes_in_its_order_when_it_resumes(photos, tmp_path, monkeypatch):
    shutil.copytree(photos.data.data, tmp_path / "photos")
    for split in NUMBERS:
        for name, number in {"blue": "10", "red": "2"}.items():
            (tmp_path / "photos" / split / name).rename(tmp_path / "photos" / split / number)
    config = photos.with_data(tmp_path / "photos")
    with monkeypatch.context() as patch:
        patch.setattr("glimpsenet.data.finding.natural_key", lambda name: name)  # as versions before sorted them
        patch.setattr(GlimpseTask, "training_step", at_step(GlimpseTask.training_step, fail)(4))
        with pytest.raises(RuntimeError, match="power cut"):
            train(config, tmp_path / "run")
    train(config, tmp_path / "run", resume=True)
    assert load_run(tmp_path / "run").classes == ["10", "2"]


def test_dynamic_rescaling_goes_half_way_to_the_share_of_the_gradient(tmp_path, monkeypatch):
    """On the logarithm: each step multiplies the factor by the root of the share wanted over the share seen."""
    seen = []

    def observe(self, optimizer):
        others, own = (
            torch.stack([p.grad.norm() for p in group["params"] if p.grad is not None]).norm().item()
            for group in optimizer.param_groups
        )
        old = self.model.policy.gradient_factor
        before(self, optimizer)
        seen.append((own / others, old, self.model.policy.gradient_factor))

    before = GlimpseTask.on_before_optimizer_step
    monkeypatch.setattr(GlimpseTask, "on_before_optimizer_step", observe)
    slow = replace(
        change(DIGITS, max_steps=5, validations=1), model=replace(MODEL, policy=LinearConfig(gradient_factor=1e-4))
    )
    train(change(slow, objective=PathwiseConfig(gradient_share=0.3)), tmp_path / "share")
    assert seen[0][1] == 1e-4
    for ratio, old, new in seen:
        assert new == pytest.approx(old * math.sqrt(0.3 / ratio), rel=1e-4)
    assert [old for _, old, _ in seen[1:]] == [new for *_, new in seen[:-1]]
    noisy = replace(slow, model=replace(MODEL, policy=LinearConfig(noise=0.5)))
    with pytest.raises(SettingError, match=r"gradient_share 0\.3, but the policy's gradients are not re-scaled"):
        train(change(noisy, objective=PathwiseConfig(gradient_share=0.3)), tmp_path / "noisy")


def test_a_run_folder_that_was_moved_resumes_bit_for_bit(run, tmp_path, monkeypatch):
    """What the best validation was must not be forgotten with the folder's name."""
    with monkeypatch.context() as patch:
        patch.setattr(GlimpseTask, "training_step", at_step(GlimpseTask.training_step, fail)(5))
        with pytest.raises(RuntimeError, match="power cut"):
            train(DIGITS, tmp_path / "here")
    (tmp_path / "here").rename(tmp_path / "there")
    train(DIGITS, tmp_path / "there", resume=True)
    assert equal(weights(tmp_path / "there"), weights(run))
    assert (tmp_path / "there/metrics.csv").read_bytes() == (run / "metrics.csv").read_bytes()


def test_the_last_checkpoint_is_of_the_last_validation_also_when_that_was_not_the_best(tmp_path, monkeypatch):
    metrics = task.ScanpathMetrics.compute
    accuracies = iter([0.5, 0.25, 0.125])

    def worse(self):
        return {**metrics(self), "accuracy": [next(accuracies)] * 2}

    monkeypatch.setattr(task.ScanpathMetrics, "compute", worse)
    monkeypatch.setattr("glimpsenet.training.fit.evaluate", lambda *_, **__: {"accuracy": [0.5, 0.5]})
    train(DIGITS, tmp_path / "run")
    assert torch.load(tmp_path / "run/checkpoints/best.ckpt", weights_only=True)["global_step"] == 2
    assert last(tmp_path / "run")["global_step"] == 6


def test_random_numbers_of_the_model_go_on_where_they_were(tmp_path, monkeypatch):
    """Dropout, say: here the loss is weighted at random."""
    loss = task.glimpse_loss

    def drawn(*arguments):
        parts = loss(*arguments)
        return parts._replace(total=parts.total * torch.rand(()))

    monkeypatch.setattr(task, "glimpse_loss", drawn)
    train(DIGITS, tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr(task, "glimpse_loss", at_step(drawn, fail)(6))
        with pytest.raises(RuntimeError, match="power cut"):
            train(DIGITS, tmp_path / "cut")
    train(DIGITS, tmp_path / "cut", resume=True)
    assert equal(last(tmp_path / "cut")["state_dict"], last(tmp_path / "whole")["state_dict"])


def test_resuming_a_run_that_has_no_checkpoint_yet_starts_it(run, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(GlimpseTask, "training_step", at_step(GlimpseTask.training_step, fail)(2))
        with pytest.raises(RuntimeError, match="power cut"):
            train(DIGITS, tmp_path / "cut")
    with pytest.raises(UserError, match="no weights"):
        load_run(tmp_path / "cut")
    train(DIGITS, tmp_path / "cut", resume=True)
    assert equal(weights(tmp_path / "cut"), weights(run))
    assert (tmp_path / "cut/metrics.csv").read_bytes() == (run / "metrics.csv").read_bytes()


def test_the_same_command_starts_a_run_over_that_never_saved_anything(run, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(GlimpseTask, "training_step", at_step(GlimpseTask.training_step, fail)(2))
        with pytest.raises(RuntimeError, match="power cut"):
            train(DIGITS, tmp_path / "cut")
    with pytest.raises(
        UserError, match=r"holds a run with another seed \(it was 0, now 3\); choose another folder, or"
    ):
        train(replace(DIGITS, seed=3), tmp_path / "cut")
    train(DIGITS, tmp_path / "cut")
    assert equal(weights(tmp_path / "cut"), weights(run))
    assert (tmp_path / "cut/metrics.csv").read_bytes() == (run / "metrics.csv").read_bytes()
    for kept in ("model.safetensors", "checkpoints/last.ckpt"):  # either is enough to lose something
        other = tmp_path / Path(kept).name
        (other / kept).parent.mkdir(parents=True)
        shutil.copy(run / kept, other / kept)
        shutil.copy(run / "config.json", other)
        with pytest.raises(UserError, match="holds an unfinished run; resume it, overwrite it, or choose"):
            train(DIGITS, other)


def test_resuming_a_finished_run_changes_nothing(tmp_path):
    first = train(DIGITS, tmp_path / "run")
    before = weights(tmp_path / "run"), rows(tmp_path / "run")
    second = train(DIGITS, tmp_path / "run", resume=True)
    assert equal(weights(tmp_path / "run"), before[0])
    assert rows(tmp_path / "run") == before[1]
    assert second == first


@pytest.mark.parametrize(
    ("other", "told"),
    [
        (change(DIGITS, batch_size=8), r"batch_size \(it was 4, now 8\)"),
        (
            change(DIGITS, max_steps=9),
            r"max_steps \(it was 6, now 9\); another schedule is another run, .*, in another folder",
        ),
        (replace(DIGITS, seed=3), r"seed \(it was 0, now 3\)"),
        (replace(DIGITS, data=FolderConfig()), "kind|data"),
        (replace(DIGITS, model=replace(MODEL, scale_range=(0.2, 0.6))), "scale_range"),
    ],
    ids=["batch size", "schedule", "seed", "data", "scale range"],
)
def test_resuming_with_another_setting_is_refused(run, other, told):
    with pytest.raises(UserError, match=told):
        train(other, run, resume=True)


def test_keyboard_interrupt_reaches_the_caller(tmp_path, monkeypatch):
    def press(*_):
        raise KeyboardInterrupt

    handler = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(GlimpseTask, "training_step", at_step(GlimpseTask.training_step, press)(3))
    try:
        with pytest.raises(KeyboardInterrupt):
            train(DIGITS, tmp_path / "run")
        assert signal.getsignal(signal.SIGINT) == handler
    finally:
        signal.signal(signal.SIGINT, handler)
    assert last(tmp_path / "run")["global_step"] == 2


# ---- when things go wrong ------------------------------------------------------------------------------------------


def test_a_loss_that_is_not_a_number_stops_with_the_step_and_keeps_good_checkpoints(tmp_path, monkeypatch):
    def nan(output, labels, weight):
        loss = task_loss(output, labels, weight)
        return loss._replace(total=loss.total * math.nan)

    task_loss = task.glimpse_loss
    monkeypatch.setattr(task, "glimpse_loss", at_step(task_loss, nan)(6))
    with pytest.raises(UserError, match=r"the training loss is NaN at step 5\b.*learning_rate"):
        train(DIGITS, tmp_path / "run")
    assert last(tmp_path / "run")["global_step"] == 4
    for name in ("best", "last"):
        state = torch.load(tmp_path / f"run/checkpoints/{name}.ckpt", weights_only=True)["state_dict"]
        assert all(value.isfinite().all() for value in state.values())


def test_weights_that_are_not_numbers_are_not_saved(tmp_path, monkeypatch):
    done = GlimpseTask.on_train_batch_end

    def spoil(self, *arguments):
        self.model.classifier.weight.data.fill_(math.nan)
        done(self, *arguments)

    monkeypatch.setattr(GlimpseTask, "on_train_batch_end", at_step(done, spoil)(4))
    with pytest.raises(UserError, match=r"the validation loss is NaN at step 4\b"):
        train(DIGITS, tmp_path / "run")
    assert last(tmp_path / "run")["global_step"] == 2
    assert last(tmp_path / "run")["state_dict"]["model.classifier.weight"].isfinite().all()


def test_a_loss_that_fails_before_any_checkpoint_does_not_praise_one(tmp_path, monkeypatch):
    def infinite(output, labels, weight):
        loss = task_loss(output, labels, weight)
        return loss._replace(total=loss.total + math.inf)

    task_loss = task.glimpse_loss
    monkeypatch.setattr(task, "glimpse_loss", infinite)
    with pytest.raises(UserError, match="the training loss is infinite at step 0") as caught:
        train(DIGITS, tmp_path / "run")
    assert "checkpoint is good" not in str(caught.value)


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_a_disk_that_fills_up_leaves_the_old_checkpoints(tmp_path, monkeypatch):
    save, before = torch.save, {}

    def write(content, file):
        if content["global_step"] == 2:
            save(content, file)
            return
        before.update(contents(tmp_path / "run/checkpoints"))
        Path(file).write_bytes(b"half a chec")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch, "save", write)
    with pytest.raises(UserError, match=r"cannot save .*No space left on device.*resume") as caught:
        train(DIGITS, tmp_path / "run")
    assert "\n" not in str(caught.value)
    before = {name: content for name, content in before.items() if not name.endswith(".part")}
    assert before.keys() == {"best.ckpt", "last.ckpt"}
    assert contents(tmp_path / "run/checkpoints") == before


def test_torch_itself_failing_to_write_leaves_the_old_checkpoint(tmp_path):
    """The file size limit stands in for a full disk."""
    file = tmp_path / "checkpoints/last.ckpt"
    saver = SafeCheckpointIO()
    saver.save_checkpoint({"values": torch.zeros(10)}, file)
    before = file.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(UserError, match=r"cannot save .*last\.ckpt"):
            saver.save_checkpoint({"values": torch.zeros(1_000_000)}, file)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert contents(file.parent) == {"last.ckpt": before}


def test_writing_aside_replaces_all_or_nothing(tmp_path):
    file = tmp_path / "a.txt"
    with write_aside(file) as aside:
        aside.write_text("old")
        assert not file.exists()
    with contextlib.suppress(ValueError), write_aside(file) as aside:
        aside.write_text("new")
        raise ValueError
    assert contents(tmp_path) == {"a.txt": b"old"}


class Trap:
    """Makes a folder when it is unpickled."""

    def __init__(self, place: Path):
        self.place = place

    def __reduce__(self):
        return os.mkdir, (str(self.place),)


@pytest.mark.parametrize("pack", [torch.save, lambda value, file: file.write_bytes(pickle.dumps(value))])
def test_a_checkpoint_with_code_in_it_is_not_run(run, tmp_path, pack):
    trap = Trap(tmp_path / "sprung")
    with pytest.raises(OSError, match="File exists"):  # it does work
        [pickle.loads(pickle.dumps(trap)) for _ in range(2)]
    trap.place.rmdir()
    (tmp_path / "run/checkpoints").mkdir(parents=True)
    (tmp_path / "run/config.json").write_bytes((run / "config.json").read_bytes())
    checkpoint = tmp_path / "run/checkpoints/last.ckpt"
    pack({"state_dict": {}, "global_step": 1, "trap": trap}, checkpoint)
    with pytest.raises(UserError, match=r"last\.ckpt"):
        train(DIGITS, tmp_path / "run", resume=True)
    with pytest.raises(UserError, match=r"last\.ckpt"):
        load_run(tmp_path / "run")
    assert not trap.place.exists()


def test_a_damaged_checkpoint_is_named(run, tmp_path):
    (tmp_path / "run/checkpoints").mkdir(parents=True)
    (tmp_path / "run/config.json").write_bytes((run / "config.json").read_bytes())
    whole = (run / "checkpoints/last.ckpt").read_bytes()
    (tmp_path / "run/checkpoints/last.ckpt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"last\.ckpt"):
        train(DIGITS, tmp_path / "run", resume=True)


# ---- unusual runs --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [1, 2, 4, 9])
def test_schedules_of_any_length_run(tmp_path, steps):
    train(change(DIGITS, max_steps=steps, validations=1), tmp_path / "run")
    assert last(tmp_path / "run")["global_step"] == steps
    assert [row["step"] for row in rows(tmp_path / "run") if row["val/loss_1"]] == [str(steps)]


def test_epochs_count_when_no_number_of_steps_is_given(tmp_path):
    config = replace(DIGITS, data=DigitsConfig(train_scenes=10, val_scenes=4))
    summary = train(change(config, max_steps=None, epochs=2), tmp_path / "run")
    assert summary["steps"] == 5  # 20 scenes, 4 at a time


@pytest.mark.parametrize("norms", ["separate", "shared"])
def test_batches_of_one_train(tmp_path, norms):
    config = change(replace(DIGITS, model=replace(MODEL, batch_norm=norms)), batch_size=1, max_steps=2)
    summary = train(config, tmp_path / "run")
    assert all(math.isfinite(loss) for loss in summary["metrics"]["loss"])


def test_a_single_look_trains(tmp_path):
    config = change(replace(DIGITS, model=replace(MODEL, num_glimpses=1)), max_steps=1)
    assert len(train(config, tmp_path / "run")["metrics"]["accuracy"]) == 1


def test_unreadable_images_are_skipped_and_counted(photos, tmp_path):
    summary = train(change(photos, max_steps=5), tmp_path / "run")  # 20 of 14: every image was asked for
    train_one, val_one = summary["skipped_images"]
    assert str(photos.data.data / "train/blue/0.png") in train_one
    assert str(photos.data.data / "val/red/2.png") in val_one
    assert summary["metrics"]["num_images"] == 5
    assert len(summary["metrics"]["skipped"]) == 1


def test_images_skipped_before_an_interruption_are_counted_too(photos, tmp_path):
    config = change(photos, max_steps=2, batch_size=14, validations=1)
    skipped = train(config, tmp_path / "run")["skipped_images"]
    assert len(skipped) == 2
    assert train(config, tmp_path / "run", resume=True)["skipped_images"] == skipped


def test_an_unreadable_image_stops_training_and_is_named(photos, tmp_path):
    config = replace(photos, data=replace(photos.data, skip_bad=False))
    with pytest.raises(UserError, match=r"cannot read image .*png.*; remove the file or skip unreadable images"):
        train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()  # val/red/2.png is reported before anything is begun


def test_a_run_that_a_bad_image_stopped_goes_on_without_it(photos, tmp_path, monkeypatch):
    monkeypatch.setattr("glimpsenet.data.folder.MOST_CHECKED", 0)
    strict = replace(photos, data=replace(photos.data, skip_bad=False))
    with pytest.raises(UserError, match="skip unreadable images"):
        train(strict, tmp_path / "run")
    assert len(train(photos, tmp_path / "run")["skipped_images"]) == 2


# ---- configurations ------------------------------------------------------------------------------------------------

SCALES = st.tuples(st.floats(0.01, 1), st.floats(0.01, 1)).map(lambda pair: tuple(sorted(pair)))
MODELS = st.builds(
    ModelConfig,
    backbone=st.text(max_size=9),
    backbone_weights=st.none() | st.text("abc/.", min_size=1).map(Path),
    num_glimpses=st.integers(1, 9),
    image_size=st.integers(100, 500),
    glimpse_size=st.integers(1, 100),
    scale_range=SCALES,
    batch_norm=st.sampled_from(["shared", "separate"]),
    pretrained=st.booleans(),
    sampling=st.sampled_from([kind() for kind in SamplingConfig.kinds.values()]),
    policy=st.sampled_from([kind() for kind in PolicyConfig.kinds.values()]),
)
DATA = st.builds(DigitsConfig, noise=st.floats(0, 1), train_scenes=st.integers(1, 10**6)) | st.builds(
    FolderConfig, data=st.text("abc/.", min_size=1).map(Path), skip_bad=st.booleans()
)
TRAININGS = st.builds(
    TrainingConfig,
    max_steps=st.none() | st.integers(1, 99),
    learning_rate=st.floats(1e-9, 1),
    objective=st.sampled_from([kind() for kind in ObjectiveConfig.kinds.values()]),
)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.builds(Config, model=MODELS, data=DATA, training=TRAININGS, seed=st.integers(0, 2**32 - 1)))
def test_a_configuration_survives_json(config):
    assert configuration.from_json(json.dumps(configuration.to_dict(config))) == config


IMPOSSIBLE = [
    (ModelConfig, {"num_glimpses": 0}),
    (ModelConfig, {"glimpse_size": 0}),
    (ModelConfig, {"image_size": 20, "glimpse_size": 21}),
    (ModelConfig, {"scale_range": (0.5, 0.2)}),
    (ModelConfig, {"scale_range": (0.0, 0.5)}),
    (ModelConfig, {"scale_range": (0.2, 1.1)}),
    (AttentionConfig, {"num_heads": 0}),
    (TokenConfig, {"subcells": 0}),
    (PathwiseConfig, {"large_until": 1.1}),
    (DigitsConfig, {"val_scenes": 0}),
    (DigitsConfig, {"noise": -0.1}),
    (TrainingConfig, {"epochs": 0}),
    (TrainingConfig, {"max_steps": 0}),
    (TrainingConfig, {"batch_size": 0}),
    (TrainingConfig, {"auxiliary_weight": 1.1}),
    (TrainingConfig, {"warmup_share": 1.0}),
    (TrainingConfig, {"workers": -1}),
    (TrainingConfig, {"learning_rate": 0.0}),
    (TrainingConfig, {"learning_rate": math.nan}),
    (TrainingConfig, {"learning_rate": math.inf}),
    (TrainingConfig, {"weight_decay": -0.1}),
    (TrainingConfig, {"gradient_clip": -1.0}),
    (TrainingConfig, {"validations": 0}),
    (Config, {"seed": -1}),
    (Config, {"seed": 2**32}),
]


@pytest.mark.parametrize(("kind", "wrong"), IMPOSSIBLE, ids=lambda value: str(value) if isinstance(value, dict) else "")
def test_impossible_settings_are_wrong_usage_and_named(kind, wrong):
    with pytest.raises(SettingError, match=list(wrong)[-1].replace("val_scenes", "scene")) as caught:
        kind(**wrong)
    assert "\n" not in str(caught.value)


BAD_VALUES = {
    "unknown setting": (("training", "learning_rat"), 0.1, "learning_rat"),
    "unknown part": (("modell",), {}, "modell"),
    "text for a number": (("model", "image_size"), "big", "image_size"),
    "unknown choice": (("model", "sampling", "kind"), "nearest", "no sampling 'nearest'"),
    "another kind's setting": (
        ("model", "policy", "scales"),
        [0.3],
        "policy 'linear' has no setting 'scales'; 'tokens' has one",
    ),
    "no kind": (("model", "policy"), "linear", "model.policy"),
    "a pair of three": (("model", "scale_range"), [0.1, 0.2, 0.3], "scale_range"),
    "text for a switch": (("model", "pretrained"), "no", "pretrained"),
    "half a pixel": (("model", "image_size"), 40.5, "image_size"),
    "unknown kind of data": (("data", "kind"), "video", "data"),
    "impossible": (("training", "batch_size"), 0, "batch_size"),
    "too big a glimpse": (("model", "glimpse_size"), 21, "smaller than glimpse_size 21"),
}


@pytest.mark.parametrize(("place", "value", "told"), BAD_VALUES.values(), ids=BAD_VALUES)
def test_configurations_are_read_strictly(place, value, told):
    values = configuration.to_dict(DIGITS)
    part = values
    for name in place[:-1]:
        part = part[name]
    part[place[-1]] = value
    with pytest.raises(UserError, match=f"bad configuration: .*{told}"):
        configuration.from_dict(values)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '{"model": 3}', '{"data": null}', '{"data": []}'])
def test_what_is_no_configuration_is_refused(text):
    with pytest.raises(UserError, match="bad configuration"):
        configuration.from_json(text)
