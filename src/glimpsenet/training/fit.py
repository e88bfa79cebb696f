"""From a configuration to a run folder."""

import contextlib
import signal
import threading
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.utilities import rank_zero_only
from pytorch_lightning.utilities.exceptions import SIGTERMException
from torch.utils.data import Sampler

from glimpsenet import runs
from glimpsenet.config import Config, DigitsConfig, FolderConfig, to_dict
from glimpsenet.data.loading import (
    FreshStream,
    InOrder,
    RepeatedBatches,
    ShardStream,
    TrainingStream,
    create_loader,
    open_data,
    workers_that_die,
)
from glimpsenet.data.sample import GlimpseDataset, Index, Splits
from glimpsenet.data.shards import ShardDataset
from glimpsenet.devices import choose_device, computes_in_bfloat16
from glimpsenet.errors import DataWarning, SettingError, UserError, first_line
from glimpsenet.evaluation.accuracy import evaluate
from glimpsenet.evaluation.efficiency import measure_cost
from glimpsenet.files import remove_unfinished, write_json
from glimpsenet.provenance import describe_machine
from glimpsenet.training.checkpoints import KeepBestAndLast, SafeCheckpointIO, batches_done, read_checkpoint
from glimpsenet.training.logs import MetricsCSV, TrainingProgress, quiet_libraries
from glimpsenet.training.objectives import Objective, create_objective
from glimpsenet.training.statistics import LocalizationStatistics
from glimpsenet.training.stopping import StopTogether
from glimpsenet.training.task import GlimpseTask, count_steps


def fit(
    config: Config,
    out: str | Path,
    *,
    objective: Objective | None = None,
    resume: bool = False,
    device: str = "auto",
    devices: int = 1,
    num_nodes: int = 1,
) -> dict[str, Any]:
    """Train, and leave a run folder.

    Args:
        config: the experiment.
        out: the run folder, new, or without a checkpoint yet; with ``resume`` one to go on in, if it is there.
        objective: of your own, in place of the one that ``config.training.objective`` names; the run's ``config.json``
            says "own" then. To resume, hand in one of the same class, made in the same way: its parameters and buffers
            come from the checkpoint, all else that it was made with does not.
        resume: go on after the last checkpoint; the configuration must be the run's own.
        device: see :func:`glimpsenet.devices.choose_device`.
        devices: how many of them on each machine.
        num_nodes: machines; start the same command on each, as torchrun or SLURM do.

    Returns:
        The content of ``summary.json``: the best model's metrics on the validation images, which chose it
        (``metrics``), and on the test images, which chose nothing (``test_metrics``; None without any), cost and
        circumstances.

    Raises:
        UserError: if the folder holds another run, the data are unusable, or training diverges.
    """
    out = Path(out)
    if objective is not None:
        config = replace(config, training=replace(config.training, objective="own"))
    if devices < 1 or num_nodes < 1:
        raise SettingError(f"devices and num_nodes must be 1 or more, got {devices} and {num_nodes}")
    place = choose_device(device)
    if place.index is not None and devices > 1:
        raise SettingError(f"--device {device} is one device; pass --device {place.type} for {devices} of them")
    quiet_libraries()
    last = out / runs.CHECKPOINTS / "last.ckpt"
    # Of several processes the first one speaks for all; it may have begun to write when the others come here.
    first = getattr(rank_zero_only, "rank", 0) == 0
    if first:
        with _told_to_go_elsewhere(out):
            _check_folder(config, out, resume)
    resume = resume and last.exists()
    pl.seed_everything(config.seed, verbose=False)
    with warnings.catch_warnings():
        if not first:
            warnings.simplefilter("ignore", DataWarning)
        # A run that is resumed keeps its classes in its order, whatever the folders are sorted by today.
        splits = open_data(config, runs.read_description(out).classes if resume else None, train=True)
    assert splits.train is not None
    description = runs.Description(config, splits.classes, splits.channels)
    model = runs.arrange_for_speed(description.build(initial_weights=not resume))
    if objective is None:
        objective = create_objective(config.training, config.model, model)
    if first:
        with _told_to_go_elsewhere(out):
            out.mkdir(parents=True, exist_ok=True)
            runs.write_description(out, description)

    world_size = devices * num_nodes
    total_steps = count_steps(config.training, len(splits.train), world_size)
    checkpoint = read_checkpoint(last) if resume else None
    done = 0 if checkpoint is None else int(checkpoint["global_step"])
    skip_bad = isinstance(config.data, FolderConfig) and config.data.skip_bad
    task = GlimpseTask(model, objective, config.model, config.training, total_steps, skip_bad)
    trainer = _create_trainer(config, out, place, devices, num_nodes, total_steps, done)
    if done < total_steps:
        used = 0 if checkpoint is None else batches_done(checkpoint)
        loaders = _create_loaders(config, splits, used, trainer, pin_memory=place.type == "cuda")
        with _interrupts_reach_the_caller(), workers_that_die(), _told_where_to_go_on(out):
            trainer.fit(task, *loaders, ckpt_path=last if resume else None, weights_only=True)
    summary = _finish(description, out, splits, task, place) if trainer.is_global_zero else {}
    trainer.strategy.barrier()
    return summary


@contextlib.contextmanager
def _interrupts_reach_the_caller() -> Iterator[None]:
    """Ctrl-C stays KeyboardInterrupt; Lightning would exit with 1 and leave the signal ignored. SIGTERM exits: 143."""
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SIGTERMException as error:
        raise SystemExit(128 + signal.SIGTERM) from error  # Lightning's says 0: as if training had come to its end
    except SystemExit as error:
        if isinstance(error.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from error
        raise
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, handler)


@contextlib.contextmanager
def _told_to_go_elsewhere(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot write to {out}: {first_line(error)}; --out DIR trains elsewhere") from error


@contextlib.contextmanager
def _told_where_to_go_on(out: Path) -> Iterator[None]:
    """A disk that is full or read-only fails wherever something is written: one line that says how to go on."""
    try:
        yield
    except OSError as error:
        way = "go on with --resume" if (out / runs.CHECKPOINTS / "last.ckpt").exists() else "there is no checkpoint yet"
        raise UserError(f"cannot go on training in {out}: {first_line(error)}; make room, or {way}") from error


FREE = ("workers", "validations", "log_localization_statistics", "skip_bad")
"""Settings that may change on the way: they do not change what is learned."""


def _check_folder(config: Config, out: Path, resume: bool) -> None:
    """Refuse to overwrite a run, or to go on with another one.

    The same command may start over where no checkpoint was ever written: there is nothing to lose.
    """
    if resume:  # of a process that was killed while it wrote
        for folder in (out, out / runs.CHECKPOINTS):
            remove_unfinished(folder)
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not resume and not _has_only_begun(out):
        raise UserError(f"{out} is there already; --resume goes on with it, --out DIR trains elsewhere")
    if changed := _first_change(runs.read_description(out).config, config):
        if not resume:
            raise UserError(f"{out} is there already, with another {changed}; --out DIR trains elsewhere")
        way = "use the settings it was started with"
        if changed.startswith(("max_steps ", "epochs ")):  # the learning rate has come down along the old schedule
            way = "another schedule is another run, from its beginning: --out DIR without --resume"
        raise UserError(f"cannot resume {out} with another {changed}; {way}")


def _has_only_begun(out: Path) -> bool:
    """Whether a folder is a run's in which nothing that was learned was ever saved."""
    checkpoints = any((out / runs.CHECKPOINTS).glob("*.ckpt"))
    return (out / runs.CONFIG).is_file() and not checkpoints and not (out / runs.WEIGHTS).exists()


def _first_change(old: Config, new: Config) -> str | None:
    """The first setting that is not free to differ, with both values."""
    before, now = to_dict(old), to_dict(new)
    for part, settings in now.items():
        changed = [
            f"{name} (it was {before[part][name]}, now {value})"
            for name, value in (settings.items() if isinstance(settings, dict) else [])
            if before[part].get(name, value) != value and name not in FREE
        ]
        if changed:
            return changed[0]
        if not isinstance(settings, dict) and before[part] != settings:
            return f"{part} (it was {before[part]}, now {settings})"
    return None


def _create_trainer(
    config: Config, out: Path, device: torch.device, devices: int, num_nodes: int, total_steps: int, done: int
) -> pl.Trainer:
    training = config.training
    bfloat16 = training.precision == "bfloat16" or (training.precision == "auto" and computes_in_bfloat16(device))
    keep = KeepBestAndLast(out / runs.CHECKPOINTS)
    callbacks: list[pl.Callback] = [TrainingProgress(total_steps), keep, StopTogether()]
    if training.log_localization_statistics:
        callbacks.append(LocalizationStatistics(out / runs.LOCALIZATION, resume_at=done))
    return pl.Trainer(
        accelerator={"cuda": "gpu"}.get(device.type, device.type),
        devices=[device.index] if device.index is not None and device.type != "cpu" else devices,
        num_nodes=num_nodes,
        precision="bf16-mixed" if bfloat16 else "32-true",
        max_steps=total_steps,
        max_epochs=-1,
        val_check_interval=max(1, total_steps // training.validations),
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        log_every_n_steps=min(50, max(1, total_steps // 100)),
        use_distributed_sampler=False,
        plugins=[SafeCheckpointIO()],
        callbacks=callbacks,
        logger=[
            MetricsCSV(out / runs.METRICS, config.model.num_glimpses, resume_at=done),
            TensorBoardLogger(out, name="", version="tensorboard"),
        ],
        enable_progress_bar=False,
        enable_checkpointing=False,
        enable_model_summary=False,
    )


def _create_loaders(
    config: Config, splits: Splits, used: int, trainer: pl.Trainer, *, pin_memory: bool
) -> tuple[Any, Any]:
    assert splits.train is not None
    training = config.training
    processes = {"rank": trainer.global_rank, "world_size": trainer.world_size}
    batches, passed = divmod(used, training.ppo_passes)
    start = batches * training.batch_size * trainer.world_size
    sampler: Sampler[Index]
    if isinstance(splits.train, ShardDataset):
        sampler = ShardStream(splits.train.sizes, config.seed, start=start, **processes)
    else:
        stream = FreshStream if isinstance(config.data, DigitsConfig) else TrainingStream
        sampler = stream(len(splits.train), config.seed, start=start, **processes)
    if training.ppo_passes > 1:
        sampler = RepeatedBatches(sampler, training.batch_size, training.ppo_passes, passed)
    options: dict[str, Any] = {"workers": training.workers, "pin_memory": pin_memory}
    train = create_loader(splits.train, sampler, training.batch_size, **options)
    val = create_loader(splits.val, InOrder(len(splits.val), **processes), training.batch_size, **options)
    return train, val


def _finish(
    description: runs.Description,
    out: Path,
    splits: Splits,
    task: GlimpseTask,
    device: torch.device,
) -> dict[str, Any]:
    """Keep the best model's weights and say how good it is."""
    config = description.config
    checkpoints = out / runs.CHECKPOINTS
    best, last = (read_checkpoint(checkpoints / f"{name}.ckpt") for name in ("best", "last"))
    task.model.load_state_dict(runs.model_weights(best["state_dict"]))
    runs.save_weights(task.model, out)

    def measure(images: GlimpseDataset) -> dict[str, Any]:
        return evaluate(
            task.model.to(device),
            create_loader(images, InOrder(len(images)), config.training.batch_size),
            scale_range=config.model.scale_range,
            image_size=config.model.image_size,
            classes=description.classes,
            skip_bad=task.skip_bad,
        )

    summary = {
        "metrics": measure(splits.val),
        "test_metrics": None if splits.test is None else measure(splits.test),
        "steps": task.total_steps,
        "best_step": int(best["global_step"]),
        "seconds": round(float(last["seconds"]), 1),
        "skipped_images": sorted(set(last["problems"])),
        "cost": measure_cost(task.model, config.model.image_size, description.channels),
        "seed": config.seed,
        "machine": describe_machine(device),
    }
    write_json(out / runs.SUMMARY, summary)
    return summary
