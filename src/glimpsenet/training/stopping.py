"""SIGTERM with several processes: whoever is told, all of them stop after the same step, and one saves.

    told_k = process k was sent SIGTERM;  all stop once max_k told_k = 1

Schedulers send the signal to one process, to each machine's first, or to all, a little apart. Lightning answers by
talking to the others from within the signal's handler, in the middle of whatever they are exchanging just then.
"""

import signal
import threading
from types import FrameType
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.utilities.exceptions import SIGTERMException


class StopTogether(pl.Callback):
    """Takes the place of Lightning's handler in runs of several processes; one process needs nobody's consent.

    Validations are finished: processes may have different numbers of images to validate, and wait for each other at the
    end.
    """

    def __init__(self) -> None:
        self.told = self.agreed = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Listen; Lightning puts the handler back that was there before training."""

        def hear(number: int, frame: FrameType | None) -> None:
            launcher = trainer.strategy.launcher
            if not self.told and launcher is not None:
                launcher.kill(signal.Signals(number))  # processes that this one started, told or not
            self.told = True

        if trainer.world_size > 1 and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, hear)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Ask the others; what Lightning reads then ends training once this step, and its validation, are done."""
        if trainer.world_size > 1:
            self.agreed = trainer.strategy.reduce_boolean_decision(self.told, all=False)
            trainer._signal_connector.received_sigterm = self.agreed

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Lightning would leave in the middle of it."""
        if trainer.world_size > 1:
            trainer._signal_connector.received_sigterm = False

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Now."""
        if trainer.world_size > 1:
            trainer._signal_connector.received_sigterm = self.agreed

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Wait for the one that saves: its children's end would be taken for a crash, and it be killed."""
        if self.agreed and isinstance(exception, SIGTERMException):
            trainer.strategy.barrier()
