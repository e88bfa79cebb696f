"""The cost of localization statistics: train on digits, with statistics at every second step.

    overhead = (median over pairs of neighbouring steps of (seconds with / without) - 1) / interval

The interval is 15 for the recipe, a hundredth of its 1,500 steps, and ``EVERY`` for short runs, the worst case.
Seconds are CPU time of the process on a CPU (other processes do not count), and wall time on a GPU. The callback is
also timed alone, which is less noisy.

Command: ``python benchmarks/statistics_overhead.py [--pairs 60] [--localization linear|spatiotemporal]``
"""

import argparse
import statistics
import tempfile
import time
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import TensorBoardLogger

from glimpsenet.data.digits import open_digits
from glimpsenet.data.loading import create_loader
from glimpsenet.data.streams import FreshStream
from glimpsenet.models.build import build_model
from glimpsenet.policies.config import PolicyConfig
from glimpsenet.recipes import digits
from glimpsenet.runs import LOCALIZATION, arrange_for_speed
from glimpsenet.training.logs import quiet_libraries
from glimpsenet.training.objectives import Pathwise
from glimpsenet.training.statistics import EVERY, LocalizationStatistics
from glimpsenet.training.task import GlimpseTask

WARMUP = 5
"""Pairs that do not count."""
RECIPE = 15
"""The interval of the digits recipe."""


def seconds() -> float:
    """See above."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


class Interleaved(LocalizationStatistics):
    """Writes in every second step only, and times the steps."""

    def __init__(self, file: Path):
        super().__init__(file)
        self.seconds: list[float] = []
        self.alone: list[float] = []
        self.start = 0.0

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """A step begins; its data are there already."""
        self.start = seconds()

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        """The callback's work, in steps 2, 4, 6..."""
        if trainer.global_step % 2:
            start = seconds()
            self.write(trainer, trainer.global_step + 1, pl_module.model.policy, pl_module.windows)
            self.alone.append(seconds() - start)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """A step ends."""
        self.seconds.append(seconds() - self.start)


def measure(pairs: int, localization: Any, batch_size: int) -> tuple[list[float], float]:
    """Ratios with / without of neighbouring steps, and the callback's share of a step without it."""
    quiet_libraries()
    warnings.filterwarnings("ignore", message=".*validation_step.*")
    config = digits()
    config = replace(config, model=replace(config.model, policy=PolicyConfig.kinds[localization]()))
    pl.seed_everything(0, verbose=False)
    splits = open_digits(config.data, config.model.image_size, 0)  # pyright: ignore[reportArgumentType]
    assert splits.train is not None
    model = arrange_for_speed(build_model(config.model, num_classes=10, in_channels=1))
    loader = create_loader(splits.train, FreshStream(len(splits.train), 0), batch_size)
    with tempfile.TemporaryDirectory() as folder:
        timer = Interleaved(Path(folder) / LOCALIZATION)
        trainer = pl.Trainer(
            devices=1,
            max_steps=2 * (pairs + WARMUP),
            max_epochs=-1,
            log_every_n_steps=1,
            gradient_clip_val=1.0,
            use_distributed_sampler=False,
            callbacks=[timer],
            logger=TensorBoardLogger(folder),
            enable_progress_bar=False,
            enable_checkpointing=False,
            enable_model_summary=False,
        )
        trainer.fit(GlimpseTask(model, Pathwise(config.model.scale_range), config.model, config.training, 1500), loader)
    warm = timer.seconds[2 * WARMUP :]
    ratios = [with_them / without for without, with_them in zip(warm[::2], warm[1::2], strict=True)]
    return ratios, statistics.median(timer.alone[WARMUP:]) / statistics.median(warm[::2])


def main() -> None:
    """Print the median and the quartiles."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--pairs", type=int, default=60)
    parser.add_argument("--localization", choices=["linear", "spatiotemporal"], default="linear")
    parser.add_argument("--batch-size", type=int, default=64)
    arguments = parser.parse_args()
    ratios, alone = measure(arguments.pairs, arguments.localization, arguments.batch_size)
    low, middle, high = statistics.quantiles(ratios, n=4)
    spread = f"quartiles {low - 1:+.1%} to {high - 1:+.1%}"
    print(f"{len(ratios)} pairs: a logged step {middle - 1:+.1%} ({spread}), the callback alone {alone:.1%} of it")
    for interval in (RECIPE, EVERY):
        print(f"every {interval}th step: {(middle - 1) / interval:+.2%}, by the callback alone {alone / interval:.2%}")


if __name__ == "__main__":
    main()
