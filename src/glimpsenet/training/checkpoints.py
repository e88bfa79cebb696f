"""Checkpoints that survive: the best and the last, written aside and renamed, read without running code."""

import os
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.io import TorchCheckpointIO

from glimpsenet.errors import UserError, first_line
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
            raise UserError(f"{reason}; the checkpoint before it is kept, go on with --resume") from error


class KeepBestAndLast(pl.Callback):
    """Saves last.ckpt after every validation, and best.ckpt where the accuracy of the last step is a new best.

    Lightning's own ModelCheckpoint saves the last only beside a new best, and forgets the best score when the folder
    is moved.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.best = -1.0

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save, on all processes together."""
        accuracy = float(trainer.callback_metrics["val/accuracy"])
        better = accuracy > self.best
        self.best = max(accuracy, self.best)
        if better:
            trainer.save_checkpoint(self.folder / "best.ckpt")
        trainer.save_checkpoint(self.folder / "last.ckpt")

    def state_dict(self) -> dict[str, Any]:
        """The best accuracy so far."""
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """See :meth:`state_dict`."""
        self.best = float(state_dict["best"])


def read_checkpoint(file: Path) -> dict[str, Any]:
    """A checkpoint's content; no code in it is executed.

    Raises:
        UserError: if it is damaged, or holds anything but tensors and plain values.
    """
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
        if not {"state_dict", "global_step", "seconds", "problems"} <= content.keys():
            raise ValueError("it is no checkpoint of a training run")
        return content
    except Exception as error:  # a damaged file raises anything
        raise UserError(f"cannot read {file}: {first_line(error)}; remove it to start over") from error
