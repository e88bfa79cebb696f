"""What a run tells while it trains: metrics.csv, and progress on the terminal."""

import csv
import logging
import warnings
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.loggers.logger import Logger
from pytorch_lightning.utilities import rank_zero_only
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from glimpsenet.files import write_aside


@rank_zero_only
def restart_csv(file: Path, columns: Sequence[str], resume_at: int) -> None:
    """Begin a table of training steps anew: the header, and the rows up to ``resume_at`` that are there already.

    A row that an interruption cut off, wherever in it, is dropped.
    """
    rows = []
    if resume_at and file.exists():
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
        table = csv.DictReader(line for line in lines if line.endswith("\n"))
        whole = (row for row in table if None not in row and None not in row.values())
        rows = [row for row in whole if row.get("step", "").isdecimal() and int(row["step"]) <= resume_at]
    with write_aside(file) as aside, open(aside, "w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)


class MetricsCSV(Logger):
    """Appends a row per event to metrics.csv; Lightning's own CSV logger overwrites the file on resume.

    Args:
        file: metrics.csv.
        num_steps: T, which sets the columns.
        resume_at: rows of later steps, from before an interruption, are dropped.
    """

    def __init__(self, file: Path, num_steps: int, resume_at: int = 0):
        super().__init__()
        self.file = file
        names = ["loss", "auxiliary_loss", "accuracy_first", "accuracy_last", "learning_rate"]
        per_step = ["accuracy", "loss", "mean_scale", "hit_rate", "found_rate"]
        self.columns = [
            "step",
            *(f"train/{name}" for name in names),
            *(f"val/{name}_{step}" for name in per_step for step in range(1, num_steps + 1)),
        ]
        self._newest = resume_at
        restart_csv(file, self.columns, resume_at)

    @property
    def name(self) -> str:
        """Lightning asks."""
        return "metrics"

    @property
    def version(self) -> str:
        """Lightning asks."""
        return ""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """One row; what is not a column (Lightning's epoch) is left out."""
        # Lightning counts steps from 0: this is the number of steps done.
        done = int(step or 0) + 1
        if "train/loss" in metrics:
            if done == self._newest:  # a batch without a readable image repeats the row before it
                return
            self._newest = done
        row = {**metrics, "step": done}
        with open(self.file, "a", newline="") as stream:
            csv.DictWriter(stream, self.columns, extrasaction="ignore").writerow(row)

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """They are in config.json."""


class TrainingProgress(pl.Callback):
    """A bar with the accuracy of first and last step on a terminal; elsewhere a line at every validation."""

    def __init__(self, total_steps: int):
        self.console = Console(stderr=True)
        self.total_steps = total_steps
        columns = [TextColumn("training"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()]
        self.bar = Progress(
            *columns, TextColumn("{task.fields[note]}"), console=self.console, disable=not self.console.is_terminal
        )
        self.task = self.bar.add_task("training", total=total_steps, note="")

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Show the bar."""
        if trainer.is_global_zero:
            self.bar.start()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Move the bar, now and then with numbers."""
        self.bar.update(self.task, completed=trainer.global_step)
        if trainer.global_step % 10 == 0 and self.console.is_terminal:
            values = trainer.callback_metrics
            self.bar.update(
                self.task,
                note=f"loss {values['train/loss']:.3f}  accuracy {values['train/accuracy_first']:.2f}"
                f" -> {values['train/accuracy_last']:.2f}",
            )

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """One line."""
        if not trainer.is_global_zero:
            return
        values = {name: float(value) for name, value in trainer.callback_metrics.items()}
        steps = sum(name.startswith("val/accuracy_") for name in values)
        line = " ".join(f"{values[f'val/accuracy_{step}']:.3f}" for step in range(1, steps + 1))
        if steps > 1 and f"val/hit_rate_{steps}" in values:
            line += "  hit rate " + " ".join(f"{values[f'val/hit_rate_{step}']:.2f}" for step in range(2, steps + 1))
        self.console.print(
            f"step {trainer.global_step:>{len(str(self.total_steps))}}/{self.total_steps}  validation accuracy {line}",
            highlight=False,
            soft_wrap=True,
        )

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Take the bar away, also after an error."""
        self.bar.stop()


def quiet_libraries() -> None:
    """Lightning's adverts and the hub's retries are no news to a user; warnings stay, but for those named here."""
    # Lightning 2.6 uses what torch 2.14 deprecates.
    warnings.filterwarnings("ignore", message=".*treespec, LeafSpec.*")
    # On purpose: no image of the batch is readable, which is counted and told at the end.
    warnings.filterwarnings("ignore", message="`training_step` returned `None`")
    # What is logged of a validation is computed from all processes' images, and the same on each.
    warnings.filterwarnings("ignore", message="It is recommended to use `self.log.*sync_dist=True")
    for name in ("pytorch_lightning", "lightning", "lightning_fabric", "lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
