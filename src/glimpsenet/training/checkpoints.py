"""Checkpoints that survive: the best and the last, written aside and renamed, read without running code."""

import os
import sys
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.io import TorchCheckpointIO
from pytorch_lightning.utilities.exceptions import SIGTERMException

from glimpsenet.errors import DamagedError, StoppedError, first_line
from glimpsenet.files import write_aside


class SafeCheckpointIO(TorchCheckpointIO):
    """Checkpoints written aside and renamed: a full disk or a crash while saving leaves the old one whole."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any = None
    ) -> None:
        """Write, flush, rename.

        Raises:
            UserError: if it cannot be written.
        """
        file = Path(path)
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            with write_aside(file) as aside:
                torch.save(checkpoint, aside)
        except (OSError, RuntimeError) as error:  # torch's zip writer tells a full disk as a RuntimeError
            reason = f"cannot save {file}: {first_line(error)}"
            raise StoppedError(f"{reason}; the checkpoint before it is kept: make room, then resume") from error


class KeepBestAndLast(pl.Callback):
    """Saves last.ckpt after every validation, and best.ckpt where the accuracy of the last step is a new best.

    On SIGTERM, which job schedulers send before they kill, it saves last.ckpt where training stands. Lightning's own
    ModelCheckpoint saves the last only beside a new best, and forgets the best score when the folder is moved.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.best = -1.0
        self.saved_at = 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """A run that resumes stands at its checkpoint."""
        self.saved_at = trainer.global_step

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save, on all processes together."""
        accuracy = float(trainer.callback_metrics["val/accuracy"])
        better = accuracy > self.best
        self.best = max(accuracy, self.best)
        if better:
            trainer.save_checkpoint(self.folder / "best.ckpt")
        trainer.save_checkpoint(self.folder / "last.ckpt")
        self.saved_at = trainer.global_step

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """On SIGTERM, save; the first process alone, from its own memory."""
        if not isinstance(exception, SIGTERMException) or not trainer.is_global_zero:
            return
        if trainer.global_step != self.saved_at:
            checkpoint = trainer._checkpoint_connector.dump_checkpoint()
            if trainer.validating:
                # As Lightning knows a validation that stopped in its first batch: it is run again, all of it.
                progress = checkpoint["loops"]["fit_loop"]["epoch_loop.val_loop.batch_progress"]
                for part in ("total", "current"):
                    progress[part].update(ready=1, started=1, processed=0, completed=0)
            trainer.strategy.save_checkpoint(checkpoint, os.fspath(self.folder / "last.ckpt"))
        print(f"glimpsenet: terminated after step {trainer.global_step}; resume to continue", file=sys.stderr)

    def state_dict(self) -> dict[str, Any]:
        """The best accuracy so far."""
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """See :meth:`state_dict`."""
        self.best = float(state_dict["best"])


def batches_done(checkpoint: dict[str, Any]) -> int:
    """How many batches training had used: more than optimiser steps, where all images of one were unreadable."""
    return int(checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]["total"]["ready"])


def read_checkpoint(file: Path) -> dict[str, Any]:
    """A checkpoint's content; no code in it is executed.

    Raises:
        UserError: if it is damaged, or holds anything but tensors and plain values.
    """
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
        if not {"state_dict", "global_step", "loops", "seconds", "problems"} <= content.keys():
            raise ValueError("it is no checkpoint of a training run")
        return content
    except Exception as error:  # a damaged file raises anything
        raise DamagedError(f"cannot read {file}: {first_line(error)}; remove it to start over") from error
