"""Training survives: a run that was killed, at whatever moment, resumes and ends as one that nobody disturbed.

Runs are started in forked processes, which are killed for good; ``benchmarks/faults.py`` does the same to the command
line, at random moments.
"""

import errno
import functools
import multiprocessing
import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

from glimpsenet import runs
from glimpsenet.config import Config
from glimpsenet.data.config import DigitsConfig, FolderConfig
from glimpsenet.data.folder import PhotoDataset
from glimpsenet.errors import UserError
from glimpsenet.models.config import MipmapConfig, ModelConfig
from glimpsenet.training import checkpoints, logs
from glimpsenet.training import fit as fitting
from glimpsenet.training.config import TrainingConfig
from glimpsenet.training.fit import fit
from glimpsenet.training.statistics import LocalizationStatistics
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
# 7 steps; validations, and checkpoints, after 2, 4, 6 and 7.
TRAINING = TrainingConfig(
    max_steps=7, batch_size=4, optimizer="adamw", learning_rate=3e-3, precision="float32", validations=3, diversity=0.3
)
DIGITS = Config(model=MODEL, data=DigitsConfig(train_scenes=64, val_scenes=12), training=TRAINING)


def train(config: Config, out: Path, **settings):
    return fit(config, out, device="cpu", **settings)


def exit_code(call, *arguments) -> int | None:
    """Of a forked process that does nothing but ``call``; minus the signal, if one killed it."""
    process = multiprocessing.get_context("fork").Process(target=call, args=arguments)
    process.start()
    process.join(120)
    assert process.exitcode is not None, "it hangs"
    return process.exitcode


def die(*_) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def at_call(number: int, owner, name: str, do, monkeypatch) -> None:
    """Do something before the ``number``-th call of a function."""
    function, calls = getattr(owner, name), 0

    @functools.wraps(function)  # Lightning looks at signatures
    def wrapped(*arguments, **settings):
        nonlocal calls
        calls += 1
        if calls == number:
            do(*arguments)
        return function(*arguments, **settings)

    monkeypatch.setattr(owner, name, wrapped)


def outcome(run: Path) -> tuple[dict[str, torch.Tensor], dict, bytes, bytes]:
    """What two runs must share: weights, the last checkpoint's tensors, both tables."""
    last = torch.load(run / "checkpoints/last.ckpt", weights_only=True)
    weights = safetensors.torch.load_file(run / "model.safetensors")
    return weights, last, (run / "metrics.csv").read_bytes(), (run / "localization.csv").read_bytes()


def assert_same(one: Path, other: Path) -> None:
    (weights, last, *tables), (other_weights, other_last, *other_tables) = outcome(one), outcome(other)
    assert weights.keys() == other_weights.keys()
    assert all(torch.equal(weights[name], other_weights[name]) for name in weights)
    torch.testing.assert_close(last["state_dict"], other_last["state_dict"], rtol=0, atol=0)
    torch.testing.assert_close(last["optimizer_states"], other_last["optimizer_states"], rtol=0, atol=0)
    assert last["lr_schedulers"] == other_last["lr_schedulers"]
    assert torch.equal(last["random_state"], other_last["random_state"])
    assert tables == other_tables
    assert sorted(os.listdir(one)) == sorted(os.listdir(other))
    assert sorted(os.listdir(one / "checkpoints")) == sorted(os.listdir(other / "checkpoints"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A run that nobody disturbed."""
    out = tmp_path_factory.mktemp("whole") / "run"
    train(DIGITS, out)
    return out


# ---- SIGKILL -------------------------------------------------------------------------------------------------------


def write_half(content, file, *_) -> None:
    Path(file).write_bytes(b"half a checkpoint")
    die()


def write_half_a_row(logger, *_) -> None:
    with open(logger.file, "a") as stream:
        stream.write("6,0.1")
    die()


# Where each process dies: before which call of what, and what it still does; the next one goes on from there.
MOMENTS = {
    "config.json is not in its place": (1, os, "replace", die),
    "no checkpoint yet": (2, GlimpseTask, "training_step", die),
    "half of the first checkpoint": (1, torch, "save", write_half),
    "best.ckpt without last.ckpt": (2, checkpoints.SafeCheckpointIO, "save_checkpoint", die),
    "half of the third checkpoint": (3, torch, "save", write_half),
    "at the end of a validation": (1, GlimpseTask, "on_validation_epoch_end", die),
    "half a row": (3, logs.MetricsCSV, "log_metrics", write_half_a_row),
    "in the last step": (5, GlimpseTask, "training_step", die),
    "before the weights": (1, runs, "save_weights", die),
    "before the summary": (1, fitting, "write_json", die),
}


def test_a_run_killed_at_every_stage_ends_as_an_undisturbed_one(whole, tmp_path, monkeypatch):
    for moment, fault in MOMENTS.items():
        with monkeypatch.context() as patch:
            at_call(*fault, patch)
            code = exit_code(lambda: train(DIGITS, tmp_path / "run", resume=True))
            assert code == -signal.SIGKILL, f"{moment}: {code}"
    assert not (tmp_path / "run/summary.json").exists()
    train(DIGITS, tmp_path / "run", resume=True)
    assert_same(tmp_path / "run", whole)


# ---- SIGTERM -------------------------------------------------------------------------------------------------------


def terminate(*_) -> None:
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize(
    ("call", "name", "saved"),
    [
        (1, "training_step", 1),
        (3, "training_step", 3),
        (4, "training_step", 4),  # a validation is due after it
        (2, "validation_step", 2),  # in the middle of one
        (5, "validation_step", 4),
    ],
)
def test_sigterm_saves_where_training_stands(whole, tmp_path, monkeypatch, capfd, call, name, saved):
    handler = signal.getsignal(signal.SIGTERM)
    with monkeypatch.context() as patch:
        at_call(call, GlimpseTask, name, terminate, patch)
        with pytest.raises(SystemExit) as caught:
            train(DIGITS, tmp_path / "run")
    assert caught.value.code == 143
    assert signal.getsignal(signal.SIGTERM) == handler
    assert f"terminated after step {saved}; resume to continue" in capfd.readouterr().err
    assert torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)["global_step"] == saved
    train(DIGITS, tmp_path / "run", resume=True)
    assert_same(tmp_path / "run", whole)


def test_sigterm_twice(whole, tmp_path, monkeypatch):
    """At once after resuming, where a checkpoint stands already; and before the step after it."""
    for call in (4, 1, 1):
        with monkeypatch.context() as patch:
            at_call(call, GlimpseTask, "training_step", terminate, patch)
            with pytest.raises(SystemExit):
                train(DIGITS, tmp_path / "run", resume=True)
    train(DIGITS, tmp_path / "run", resume=True)
    assert_same(tmp_path / "run", whole)


# ---- what the disk does --------------------------------------------------------------------------------------------


def refuse(code: int):
    def call(*_):
        raise OSError(code, os.strerror(code))

    return call


@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES, errno.ENOSPC])
def test_a_folder_that_cannot_be_written_is_told_before_training(tmp_path, monkeypatch, code):
    at_call(1, Path, "mkdir", refuse(code), monkeypatch)
    with pytest.raises(UserError, match=f"cannot write to .*run: .*{os.strerror(code)}.*choose another folder"):
        train(DIGITS, tmp_path / "run")


@pytest.mark.skipif(os.geteuid() != 0, reason="takes root to become somebody else")
def test_a_read_only_folder_is_told(tmp_path):
    """For real, as a user who may not write there."""
    tmp_path.chmod(0o755)
    told = tmp_path / "told"
    told.touch()
    told.chmod(0o666)

    def as_nobody() -> None:
        os.chdir(tmp_path)  # the folders above are closed to others
        os.setuid(65534)
        try:
            train(DIGITS, Path("run"))
        except UserError as error:
            Path("told").write_text(str(error))

    assert exit_code(as_nobody) == 0
    assert "Permission denied" in told.read_text()
    assert "choose another folder" in told.read_text()


@pytest.mark.parametrize(
    ("call", "owner", "name"), [(6, logs.MetricsCSV, "log_metrics"), (2, LocalizationStatistics, "write")]
)
def test_a_disk_that_is_full_at_a_row_leaves_the_checkpoint(whole, tmp_path, monkeypatch, call, owner, name):
    with monkeypatch.context() as patch:
        at_call(call, owner, name, refuse(errno.ENOSPC), patch)
        with pytest.raises(UserError, match=r"cannot go on training in .*No space left on device.*resume"):
            train(DIGITS, tmp_path / "run")
    train(DIGITS, tmp_path / "run", resume=True)
    assert_same(tmp_path / "run", whole)


# ---- what the data do ----------------------------------------------------------------------------------------------


@pytest.fixture
def photos(tmp_path) -> Config:
    """Six photos a split; batches of one."""
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for name in ("blue", "red"):
            folder = tmp_path / "photos" / split / name
            folder.mkdir(parents=True)
            for place in range(3):
                Image.fromarray(rng.integers(256, size=(24, 24, 3), dtype=np.uint8)).save(folder / f"{place}.png")
    data = FolderConfig(data=tmp_path / "photos", skip_bad=True)
    return Config(model=MODEL, data=data, training=replace(TRAINING, batch_size=1))


def test_a_file_that_vanishes_while_training_is_named_and_the_checkpoint_kept(photos, tmp_path, monkeypatch):
    strict = replace(photos, data=replace(photos.data, skip_bad=False))
    files = sorted((tmp_path / "photos/train").rglob("*.png"))
    at_call(4, GlimpseTask, "training_step", lambda *_: [file.unlink() for file in files], monkeypatch)
    with pytest.raises(UserError, match=r"cannot read image .*No such file.*skip unreadable images"):
        train(strict, tmp_path / "run")
    assert torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)["global_step"] == 4


def test_batches_without_a_readable_image_cost_no_step_and_resume(photos, tmp_path, monkeypatch):
    """A third of the batches is skipped: the schedule, and a resumed stream, count without them."""
    for name in ("blue/0", "red/2"):
        (tmp_path / f"photos/train/{name}.png").write_text("no image")
    train(photos, tmp_path / "whole")
    last = torch.load(tmp_path / "whole/checkpoints/last.ckpt", weights_only=True)
    assert last["global_step"] == 7
    assert last["lr_schedulers"][0]["last_epoch"] == 7
    assert len(last["problems"]) >= 2
    with monkeypatch.context() as patch:
        at_call(6, GlimpseTask, "training_step", terminate, patch)
        with pytest.raises(SystemExit):
            train(photos, tmp_path / "cut")
    train(photos, tmp_path / "cut", resume=True)
    assert_same(tmp_path / "cut", tmp_path / "whole")


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork")
def test_a_worker_that_dies_is_told(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(PhotoDataset, "__getitem__", die)
    with pytest.raises(UserError, match=r"a process that reads images died .*fewer workers"):
        train(replace(photos, training=replace(photos.training, workers=1)), tmp_path / "run")


# ---- numbers that are none -----------------------------------------------------------------------------------------


def spoil_weight(task, *_) -> None:
    task.model.fusion.norm.weight.data[0] = torch.nan


def spoil_statistic(task, *_) -> None:
    task.model.backbone.net.stages[0][1].running_mean[0] = torch.nan


def spoil_image(_, batch, *__) -> None:
    batch.images[0, 0, 0, 0] = torch.nan


@pytest.mark.parametrize(
    ("step", "name", "spoil", "told"),
    [
        (3, "training_step", spoil_weight, r"training loss is NaN at step 2, first in: weight fusion\.norm\.weight;"),
        (5, "training_step", spoil_image, "training loss is NaN at step 4, first in: images;"),
        (1, "validation_step", spoil_statistic, r"validation loss is NaN at step 2, first in: statistic backbone\.net"),
    ],
)
def test_a_nan_names_step_and_tensor(tmp_path, monkeypatch, step, name, spoil, told):
    at_call(step, GlimpseTask, name, spoil, monkeypatch)
    with pytest.raises(UserError, match=told):
        train(DIGITS, tmp_path / "run")


def test_a_gradient_that_is_nan_is_found_in_the_weight_it_spoilt(tmp_path, monkeypatch):
    def nan_gradient(task, *_):
        task.model.classifier.bias.register_hook(lambda gradient: gradient * torch.nan)

    at_call(3, GlimpseTask, "training_step", nan_gradient, monkeypatch)
    with pytest.raises(UserError, match=r"at step 3, first in: weight classifier\.bias;"):
        train(DIGITS, tmp_path / "run")
