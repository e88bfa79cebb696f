"""Statistics of the localization network while it trains: localization.csv, and TensorBoard.

    min, max, mean, std   of   every weight tensor,
                               its gradient after the re-scaling, and before it: gradient / gradient_factor,
                               s, tx and ty of every glimpse t = 2..T

All gradient into the network passes the re-scaling, hence the division; it is the gradient before clipping. Source:
Supeene & Wang, sections 4.2 and 5.2.1. Nothing is computed, and no device waited for, between logged steps.
"""

import csv
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytorch_lightning as pl
import torch
from jaxtyping import Float
from pytorch_lightning.loggers import TensorBoardLogger
from tensorboard.compat.proto import summary_pb2 as proto
from torch import Tensor
from torch.optim import Optimizer

from glimpsenet.policies.base import Policy
from glimpsenet.runs import LOCALIZATION_COLUMNS, LOCALIZATION_STATISTICS
from glimpsenet.training.logs import restart_csv
from glimpsenet.training.task import GlimpseTask

BINS = 64
"""Bars of a histogram in TensorBoard."""
EVERY = 5
"""At most every fifth step has rows: they cost a few percent of a step (``benchmarks/statistics_overhead.py``)."""


class Observed(NamedTuple):
    """A tensor worth a row."""

    kind: str
    """weight, gradient, gradient_before_rescaling or output."""
    name: str
    """The parameter's, or s_2, tx_2, ty_2, s_3, ..."""
    values: Tensor


def observe(policy: Policy, windows: Float[Tensor, "batch glimpse 3"]) -> Iterator[Observed]:
    """All there is to see of a policy after a backward pass that chose the windows ``windows``.

    Without parameters only outputs; where the gradient factor is 0, or gradients are not re-scaled, none before it.
    """
    factor = policy.gradient_factor or 0.0
    for name, parameter in policy.named_parameters():
        yield Observed("weight", name, parameter.detach())
        if parameter.grad is not None:
            yield Observed("gradient", name, parameter.grad)
            if factor:
                yield Observed("gradient_before_rescaling", name, parameter.grad / factor)
    for glimpse in range(2, windows.shape[1] + 1):
        for column, name in enumerate(("s", "tx", "ty")):
            yield Observed("output", f"{name}_{glimpse}", windows[:, glimpse - 1, column])


def summarize(values: Tensor) -> Float[Tensor, "4"]:
    """min, max, mean and (population) standard deviation."""
    values = values.float()
    return torch.stack([*values.aminmax(), values.mean(), values.std(correction=0)])


class LocalizationStatistics(pl.Callback):
    """Appends a row per observed tensor now and then; of several processes the first.

    That is: in step 1, and every ``trainer.log_every_n_steps`` steps or every ``EVERY``, whichever is rarer.

    Weights are those that the step's gradients and windows belong to, from before its update. With several devices,
    gradients are of all, windows of the first.

    Args:
        file: localization.csv.
        resume_at: rows of later steps, from before an interruption, are dropped.
    """

    def __init__(self, file: Path, resume_at: int = 0):
        self.file = file
        restart_csv(file, LOCALIZATION_COLUMNS, resume_at)

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        """Lightning calls this between the backward pass and clipping."""
        assert isinstance(pl_module, GlimpseTask)
        every = max(trainer.log_every_n_steps, EVERY)  # pyright: ignore[reportAttributeAccessIssue]
        step = trainer.global_step + 1
        if (step == 1 or step % every == 0) and trainer.is_global_zero and pl_module.windows is not None:
            self.write(trainer, step, pl_module.model.policy, pl_module.windows)

    def write(self, trainer: pl.Trainer, step: int, policy: Policy, windows: Float[Tensor, "batch glimpse 3"]) -> None:
        """Rows, and an event for TensorBoard, of step ``step`` (the first is 1)."""
        observed = list(observe(policy, windows))
        if observed:
            rows = torch.stack([summarize(one.values) for one in observed]).tolist()
            self._append(step, observed, rows)
            for logger in trainer.loggers:
                if isinstance(logger, TensorBoardLogger):
                    # Lightning counts steps from 0, for the losses beside these too.
                    _draw(logger, step - 1, observed, rows)

    def _append(self, step: int, observed: list[Observed], rows: list[list[float]]) -> None:
        with open(self.file, "a", newline="") as stream:
            csv.writer(stream).writerows(
                [step, one.kind, one.name, *(f"{value:.8g}" for value in row)]
                for one, row in zip(observed, rows, strict=True)
            )


def _draw(logger: TensorBoardLogger, step: int, observed: list[Observed], rows: list[list[float]]) -> None:
    """Scalars, and histograms where all values are finite; one event, as each costs about as much as a histogram."""
    finite = [(one, row) for one, row in zip(observed, rows, strict=True) if all(map(math.isfinite, row))]
    # Counted where the tensors are, carried over at once.
    counts = [torch.histc(one.values.float(), BINS, row[0], row[1]) for one, row in finite]
    event = proto.Summary(  # pyright: ignore[reportAttributeAccessIssue]
        value=[
            proto.Summary.Value(  # pyright: ignore[reportAttributeAccessIssue]
                tag=f"localization/{one.kind}/{one.name}/{name}", simple_value=value
            )
            for one, row in zip(observed, rows, strict=True)
            for name, value in zip(LOCALIZATION_STATISTICS, row, strict=True)
        ]
    )
    for (one, row), bars in zip(finite, torch.stack(counts).tolist() if counts else [], strict=True):
        event.value.append(_histogram(one, row, bars))
    logger.experiment.file_writer.add_summary(event, step)


def _histogram(observed: Observed, row: list[float], counts: list[float]) -> Any:
    low, high, mean, std = row
    number = observed.values.numel()
    # histc takes the range from one below to one above where all values are the same.
    start, width = (low, (high - low) / BINS) if low < high else (low - 1, 2 / BINS)
    histogram = proto.HistogramProto(  # pyright: ignore[reportAttributeAccessIssue]
        min=low,
        max=high,
        num=number,
        sum=mean * number,
        sum_squares=(std**2 + mean**2) * number,
        bucket_limit=[start + width * (bar + 1) for bar in range(BINS)],
        bucket=counts,
    )
    tag = f"localization/{observed.kind}/{observed.name}"
    return proto.Summary.Value(tag=tag, histo=histogram)  # pyright: ignore[reportAttributeAccessIssue]
