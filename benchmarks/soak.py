"""Soak test: train and predict for a long time, without growth of memory or open files.

    growth = (mean of the last quarter - mean of the second quarter) of regular measurements

The first quarter is warm-up: allocators, caches, threads. Training is one process with many validations and
checkpoints; predictions read image files, good and broken ones alternately.

Command: ``python benchmarks/soak.py [--minutes 60] [--predictions 100000]``; writes ``benchmarks/results/soak.json``
"""

import argparse
import itertools
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytorch_lightning as pl
import torch
from PIL import Image

from glimpsenet.config import Config
from glimpsenet.data.config import FolderConfig, NoAugmentation
from glimpsenet.files import write_json
from glimpsenet.inference import Unreadable, predict
from glimpsenet.models.build import build_model
from glimpsenet.models.config import ModelConfig
from glimpsenet.provenance import provenance
from glimpsenet.recipes import RECIPES
from glimpsenet.runs import Description, load_run, save_weights, write_description
from glimpsenet.training import fit as fitting

RESULTS = Path("benchmarks/results/soak.json")
MOST_MEGABYTES, MOST_FILES = 20.0, 0.5
"""Growth that counts as none; allocators breathe."""
FEWEST_LOOKS = 8
ENDLESS = 10_000_000
"""Steps, and epochs."""


@dataclass
class Watch:
    """Resident memory and open files of this process, at regular moments."""

    megabytes: list[float] = field(default_factory=list)
    files: list[int] = field(default_factory=list)

    def look(self) -> None:
        """Now."""
        process = psutil.Process()
        self.megabytes.append(process.memory_info().rss / 1e6)
        self.files.append(process.num_fds())

    def result(self) -> dict[str, Any]:
        """Growth, and whether it counts as none; unknown, and not passed, where it was looked at too rarely."""
        if len(self.files) < FEWEST_LOOKS:
            return {"looks": len(self.files), "megabytes_growth": None, "files_growth": None, "passed": False}
        megabytes, files = growth(self.megabytes), growth(self.files)
        return {
            "looks": len(self.files),
            "megabytes": [round(self.megabytes[0], 1), round(self.megabytes[-1], 1)],
            "megabytes_growth": round(megabytes, 2),
            "files_growth": round(files, 2),
            "passed": megabytes <= MOST_MEGABYTES and files <= MOST_FILES,
        }


def growth(values: Sequence[float]) -> float:
    """From the second quarter to the last."""
    quarter = max(1, len(values) // 4)
    return float(np.mean(values[-quarter:]) - np.mean(values[quarter : 2 * quarter]))


class Watcher(pl.Callback):
    """Looks every so many steps, and stops when the time is over."""

    def __init__(self, watch: Watch, over: Callable[[], bool], every: int):
        self.watch, self.over, self.every = watch, over, every

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Lightning calls it."""
        if trainer.global_step % self.every == 0:
            self.watch.look()
            if self.over():
                raise TimeIsUpError


class TimeIsUpError(Exception):
    """The soak has lasted as long as it was to."""


def soak_training(
    folder: Path, over: Callable[[], bool], *, every: int = 50, config: Config | None = None
) -> dict[str, Any]:
    """Train digit scenes until ``over()``; validations and checkpoints as often as looks."""
    config = config or RECIPES["digits"]()
    endless = {"epochs": ENDLESS, "max_steps": ENDLESS, "validations": ENDLESS // every}
    config = replace(config, training=replace(config.training, **endless))
    watch, create = Watch(), fitting._create_trainer

    def with_watcher(*arguments: Any, **settings: Any) -> pl.Trainer:
        trainer = create(*arguments, **settings)
        trainer.callbacks.append(Watcher(watch, over, every))  # pyright: ignore[reportAttributeAccessIssue]
        return trainer

    fitting._create_trainer = with_watcher
    begun, steps = time.monotonic(), 0
    try:
        fitting.fit(config, folder / "run", device="cpu")
    except TimeIsUpError:
        steps = every * len(watch.files)
    finally:
        fitting._create_trainer = create
    return {"steps": steps, "seconds": round(time.monotonic() - begun), **watch.result()}


def soak_predictions(folder: Path, count: int) -> dict[str, Any]:
    """Predict image files, every fifth of them broken, again and again."""
    model = ModelConfig(backbone="glimpse_cnn", image_size=64, glimpse_size=16)
    run = folder / "untrained"
    run.mkdir()
    write_description(
        run, Description(Config(model=model, data=FolderConfig(augmentation=NoAugmentation())), ["a", "b"], 3)
    )
    save_weights(build_model(model, num_classes=2, in_channels=3), run)
    files = []
    rng = np.random.default_rng(0)
    for place in range(50):
        file = folder / f"{place}.{('png', 'jpg', 'webp', 'gif', 'tif')[place % 5]}"
        Image.fromarray(rng.integers(256, size=(80, 60, 3), dtype=np.uint8)).save(file)
        if place % 7 == 0:
            file.write_bytes(file.read_bytes()[:200])
        files.append(file)
    watch, loaded, done, unreadable = Watch(), load_run(run), 0, 0
    begun = time.monotonic()
    rounds = max(1, count // (20 * len(files)))
    while done < count:
        many = list(itertools.islice(itertools.cycle(files), min(rounds * len(files), count - done)))
        for prediction in predict(loaded, many):
            done += 1
            unreadable += isinstance(prediction, Unreadable)
        watch.look()
    return {"predictions": done, "unreadable": unreadable, "seconds": round(time.monotonic() - begun), **watch.result()}


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--predictions", type=int, default=100_000)
    chosen = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    until = time.monotonic() + 60 * chosen.minutes
    with tempfile.TemporaryDirectory() as folder:
        result = {
            "training": soak_training(Path(folder), lambda: time.monotonic() > until),
            "predictions": soak_predictions(Path(folder), chosen.predictions),
        }
    told = {**provenance(torch.device("cpu"), [RECIPES["digits"]().seed]), **result}
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    write_json(RESULTS, told)
    print(told["training"], told["predictions"], f"wrote {RESULTS}", sep="\n")
    sys.exit(not (result["training"]["passed"] and result["predictions"]["passed"]))


if __name__ == "__main__":
    main()
