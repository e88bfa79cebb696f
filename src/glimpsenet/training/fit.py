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
from glimpsenet.config import Config
from glimpsenet.data.loading import InOrder, create_loader, open_data, workers_that_die
from glimpsenet.data.noise import one_warning
from glimpsenet.data.sample import GlimpseDataset, Index, Splits
from glimpsenet.data.streams import RepeatedBatches
from glimpsenet.devices import choose_device, computes_in_bfloat16
from glimpsenet.errors import DataWarning, OutputError, SettingError, StoppedError, UserError, first_line
from glimpsenet.evaluation.accuracy import evaluate
from glimpsenet.evaluation.efficiency import measure_cost
from glimpsenet.files import write_json
from glimpsenet.kinds import at_least
from glimpsenet.models.config import ModelConfig
from glimpsenet.models.glimpsenet import GlimpseNet
from glimpsenet.policies.config import CustomPolicyConfig
from glimpsenet.provenance import describe_machine
from glimpsenet.training.checkpoints import KeepBestAndLast, SafeCheckpointIO, batches_done, read_checkpoint
from glimpsenet.training.config import CustomObjectiveConfig
from glimpsenet.training.logs import MetricsCSV, TrainingProgress, quiet_libraries
from glimpsenet.training.objectives import Objective
from glimpsenet.training.run_folder import (
    TENSORBOARD,
    alone_in,
    check_folder,
    check_way,
    finished_summary,
    replace_run,
)
from glimpsenet.training.statistics import LocalizationStatistics
from glimpsenet.training.stopping import StopTogether
from glimpsenet.training.task import GlimpseTask, check_objective, count_steps


@one_warning()
def fit(
    config: Config,
    out: str | Path,
    *,
    model: GlimpseNet | None = None,
    objective: Objective | None = None,
    resume: bool = False,
    overwrite: bool = False,
    device: str = "auto",
    devices: int = 1,
    num_nodes: int = 1,
) -> dict[str, Any]:
    """Train, and leave a run folder; a finished run with these settings is left as it is.

    Args:
        config: the experiment.
        out: the run folder: new, finished, or without a checkpoint yet; with ``resume`` it may hold an unfinished run.
        model: a custom one, in place of the one that ``config.model`` builds, whose sizes and number of glimpses must
            be its own; :func:`~glimpsenet.runs.run.load_run` asks for one made in the same way.
        objective: a custom one, in place of the one that ``config.training.objective`` builds. To resume, hand in one
            made in the same way: only its parameters and buffers come from the checkpoint.
        resume: go on after the last checkpoint; the configuration must be the run's own.
        overwrite: replace the run that the folder holds, whatever it learned, once settings and data are checked.
        device: see :func:`glimpsenet.devices.choose_device`.
        devices: how many of them on each machine; several start one process each.
        num_nodes: machines; start the same command on each, as torchrun or SLURM do.

    Returns:
        The content of ``summary.json``: ``metrics`` on val, ``test_metrics`` (None without test images), cost...

    Raises:
        UserError: for a folder with another run or another process, unusable data, or training that diverges.

    Example:
        >>> config = glimpsenet.recipe("digits")
        >>> short = replace(config, training=replace(config.training, max_steps=2, batch_size=4, validations=1))
        >>> glimpsenet.fit(short, "runs/short", device="cpu")["test_metrics"]["num_images"]
        1000
    """
    check_way(resume=resume, overwrite=overwrite)
    out, config = Path(out), _with_custom_parts(config, model, objective)
    place = _choose_devices(device, devices, num_nodes)
    quiet_libraries()
    first, last = _is_first_process(), out / runs.CHECKPOINTS / "last.ckpt"
    if not overwrite and (complete := _complete(config, out, objective)) is not None:
        return complete if first else {}
    with contextlib.ExitStack() as until_the_end:
        if first:
            _take(out, until_the_end, config, resume=resume, overwrite=overwrite)
        return _train(config, out, model, objective, resume and last.exists(), place, devices, num_nodes)


def _take(out: Path, until_the_end: contextlib.ExitStack, config: Config, *, resume: bool, overwrite: bool) -> None:
    """Keep other processes out of the folder, and refuse to train over what it holds."""
    with _told_to_go_elsewhere(out):
        until_the_end.enter_context(alone_in(out))
        check_folder(config, out, resume=resume, overwrite=overwrite)


def _with_custom_parts(config: Config, model: GlimpseNet | None, objective: Objective | None) -> Config:
    """What ``config.json`` says of parts that no configuration builds."""
    if model is not None:
        _check_sizes(model, config.model)
        config = replace(config, model=replace(config.model, policy=CustomPolicyConfig()))
    if objective is not None:
        config = replace(config, training=replace(config.training, objective=CustomObjectiveConfig()))
    return config


def _complete(config: Config, out: Path, objective: Objective | None) -> dict[str, Any] | None:
    """The summary of a finished run, if it was trained like this."""
    summary, last = finished_summary(config, out), out / runs.CHECKPOINTS / "last.ckpt"
    if summary is not None and objective is not None and last.exists():
        check_objective(read_checkpoint(last), objective)
    return summary


def _choose_devices(device: str, devices: int, num_nodes: int) -> torch.device:
    at_least(1, devices=devices, num_nodes=num_nodes)
    place = choose_device(device)
    if place.index is not None and devices > 1:
        raise SettingError(f"device {device} is one device; {place.type} uses {devices} of them")
    return place


def _check_sizes(model: GlimpseNet, config: ModelConfig) -> None:
    for name, own in {"num_glimpses": model.num_glimpses, "glimpse_size": model.generator.glimpse_size}.items():
        if getattr(config, name) != own:
            raise SettingError(f"the model has {name} {own}, the configuration {getattr(config, name)}")


def _train(
    config: Config,
    out: Path,
    model: GlimpseNet | None,
    objective: Objective | None,
    resume: bool,
    place: torch.device,
    devices: int,
    num_nodes: int,
) -> dict[str, Any]:
    """What is left of :func:`fit` in a folder that may be written to."""
    pl.seed_everything(config.seed, verbose=False)
    with warnings.catch_warnings():
        if not _is_first_process():
            warnings.simplefilter("ignore", DataWarning)
        # A run that is resumed keeps its classes in its order, whatever the folders are sorted by today.
        splits = open_data(config, runs.read_description(out).classes if resume else None, train=True)
    assert splits.train is not None
    description = runs.Description(config, splits.classes, splits.channels)
    if model is None:
        model = description.build(initial_weights=not resume)
    elif model.num_classes != len(splits.classes) or len(model.normalization.mean) != splits.channels:
        raise SettingError(
            f"the model has {model.num_classes} classes and {len(model.normalization.mean)} channels, the data"
            f" {len(splits.classes)} and {splits.channels}"
        )
    model = runs.arrange_for_speed(model)
    if objective is None:
        objective = config.training.objective.build(model, config.model.scale_range)
    total_steps = count_steps(config.training, len(splits.train), devices * num_nodes, objective.passes)
    last = out / runs.CHECKPOINTS / "last.ckpt"
    checkpoint = read_checkpoint(last) if resume else None
    done = 0 if checkpoint is None else int(checkpoint["global_step"])
    task = GlimpseTask(model, objective, config.model, config.training, total_steps, config.data.skip_bad)
    trainer = _create_trainer(config, out, place, devices, num_nodes, total_steps)
    # All that can be refused has been: from here on the folder is written to.
    if _is_first_process():
        with _told_to_go_elsewhere(out):
            (runs.write_description if resume else replace_run)(out, description)
    _attach_logs(trainer, config, out, done)
    if done < total_steps:
        used = 0 if checkpoint is None else batches_done(checkpoint)
        pin_memory = place.type == "cuda"
        loaders = _create_loaders(config, splits, used, trainer, passes=objective.passes, pin_memory=pin_memory)
        with _interrupts_reach_the_caller(), workers_that_die(), _told_where_to_go_on(out):
            trainer.fit(task, *loaders, ckpt_path=last if resume else None, weights_only=True)
    summary = _finish(description, out, splits, task, place) if trainer.is_global_zero else {}
    trainer.strategy.barrier()
    return summary


def _is_first_process() -> bool:
    """Of several processes the first one speaks for all; it may have begun to write when the others start."""
    return getattr(rank_zero_only, "rank", 0) == 0


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
    except UserError:
        raise
    except OSError as error:
        raise OutputError(f"cannot write to {out}: {first_line(error)}; choose another folder") from error


@contextlib.contextmanager
def _told_where_to_go_on(out: Path) -> Iterator[None]:
    """A disk that is full or read-only fails wherever something is written: one line that says how to go on."""
    try:
        yield
    except UserError:
        raise
    except OSError as error:
        problem = f"cannot go on training in {out}: {first_line(error)}"
        if (out / runs.CHECKPOINTS / "last.ckpt").exists():
            raise StoppedError(f"{problem}; make room, then resume") from error
        raise OutputError(f"{problem}; make room: no checkpoint has been saved yet") from error


def _create_trainer(
    config: Config, out: Path, device: torch.device, devices: int, num_nodes: int, total_steps: int
) -> pl.Trainer:
    """A trainer that has written nothing yet."""
    training = config.training
    bfloat16 = training.precision == "bfloat16" or (training.precision == "auto" and computes_in_bfloat16(device))
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
        callbacks=[TrainingProgress(total_steps), KeepBestAndLast(out / runs.CHECKPOINTS), StopTogether()],
        logger=False,
        enable_progress_bar=False,
        enable_checkpointing=False,
        enable_model_summary=False,
    )


def _attach_logs(trainer: pl.Trainer, config: Config, out: Path, done: int) -> None:
    """What a run writes while it trains; tables begin anew, after the rows up to step ``done``."""
    trainer.loggers = [
        MetricsCSV(out / runs.METRICS, config.model.num_glimpses, resume_at=done),
        TensorBoardLogger(out, name="", version=TENSORBOARD),
    ]
    if config.training.log_localization_statistics:
        statistics = LocalizationStatistics(out / runs.LOCALIZATION, resume_at=done)
        trainer.callbacks.append(statistics)  # pyright: ignore[reportAttributeAccessIssue]


def _create_loaders(
    config: Config, splits: Splits, used: int, trainer: pl.Trainer, *, passes: int, pin_memory: bool
) -> tuple[Any, Any]:
    assert splits.train is not None
    training = config.training
    processes = {"rank": trainer.global_rank, "world_size": trainer.world_size}
    batches, passed = divmod(used, passes)
    start = batches * training.batch_size * trainer.world_size
    sampler: Sampler[Index] = splits.train.stream(config.seed, start=start, **processes)
    if passes > 1:
        sampler = RepeatedBatches(sampler, training.batch_size, passes, passed)
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
