"""``glimpsenet train`` and ``reproduce``: recipes, and the rows of Table 1."""

import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from glimpsenet.cli.arguments import Device, Records, at_least
from glimpsenet.cli.output import say
from glimpsenet.config import Config
from glimpsenet.data.config import DataConfig
from glimpsenet.models.config import ModelConfig
from glimpsenet.recipes import RECIPES
from glimpsenet.tables import counted, print_table
from glimpsenet.training.config import TrainingConfig

OPTIMISTIC = (
    "measured on val, which chose the checkpoint: expect less on new images; keep some in test/CLASS for a fair number"
)


@dataclass(frozen=True)
class TrainingRun:
    """A recipe and where to run it."""

    model: Annotated[ModelConfig, tyro.conf.arg(name="")]
    data: Annotated[DataConfig, tyro.conf.arg(name="")]
    training: Annotated[TrainingConfig, tyro.conf.arg(name="")]
    out: Path
    """Run folder. A finished run with these settings is left as it is; what was learned is not lost unasked."""
    seed: int = 0
    """Everything random follows from it, 0 to 2^32 - 1."""
    resume: bool = False
    """Go on after the last checkpoint in the run folder (or start, if there is none)."""
    overwrite: bool = False
    """Replace the run in the run folder, whatever it learned, once settings and data are checked."""
    device: Device = "auto"
    devices: int = 1
    """How many of them to train on, on each machine."""
    num_nodes: int = 1
    """Machines; start the same command on each (torchrun, SLURM)."""

    @classmethod
    def of(cls, name: str, config: Config) -> "TrainingRun":
        """A recipe's."""
        return cls(config.model, config.data, config.training, Path("runs") / name, config.seed)

    @property
    def config(self) -> Config:
        """The experiment."""
        return Config(model=self.model, data=self.data, training=self.training, seed=self.seed)


RUNS = {name: TrainingRun.of(name, recipe()) for name, recipe in RECIPES.items()}
"""What each recipe's flags change."""
if TYPE_CHECKING:
    Recipe = TrainingRun
else:
    Recipe = tyro.extras.subcommand_type_from_defaults(
        RUNS,
        {name: inspect.cleandoc(recipe.__doc__ or "") for name, recipe in RECIPES.items()},
        prefix_names=False,
    )


def train(recipe: Recipe) -> None:
    """Train a recipe; leaves a run folder with weights, metrics and logs."""
    from glimpsenet.evaluation.tables import evaluation_table
    from glimpsenet.training.fit import fit
    from glimpsenet.training.run_folder import finished_summary

    complete = not recipe.overwrite and finished_summary(recipe.config, recipe.out) is not None
    summary = fit(
        recipe.config,
        recipe.out,
        resume=recipe.resume,
        overwrite=recipe.overwrite,
        device=recipe.device,
        devices=recipe.devices,
        num_nodes=recipe.num_nodes,
    )
    if summary:
        if complete:
            say(f"{recipe.out} holds this run already, complete: nothing was trained")
        # While training, validation computes as training does, in bfloat16 where the device has it.
        say(f"best on validation, at step {summary['best_step']} of {summary['steps']}; measured in float32:")
        print_table(*evaluation_table({"learned": summary["metrics"]}, "val"))
        if summary["test_metrics"] is None:
            say(OPTIMISTIC)
        else:
            say("the same on the test images, which chose nothing:")
            print_table(*evaluation_table({"learned": summary["test_metrics"]}, "test"))
        if summary["skipped_images"]:
            say(f"skipped {counted(len(summary['skipped_images']), 'unreadable image')}, named in summary.json")
        say(f"the run is in {recipe.out}")


def reproduce(
    *,
    rows: tuple[str, ...] = (),
    data: Path | None = None,
    out: Path = Path("runs/reproduction"),
    records: Records = None,
    seeds: int = 1,
    max_steps: int | None = None,
    image_size: int | None = None,
    backbone: str | None = None,
    backbone_weights: Path | None = None,
    device: Device = "auto",
) -> None:
    """Train the rows of the paper's Table 1 and report them beside the paper's numbers; goes on where it stopped.

    Args:
        rows: names of rows; all eight, one of ours and the plain backbone if none is given.
        data: image folder with train/CLASS and val/CLASS; digit scenes if not given.
        out: folder of the runs and the report.
        seeds: how often to train each row.
        max_steps: optimiser steps a row; 800 on digits, 12 epochs on a folder if not given.
        image_size: side of the images in pixels; glimpses keep their share.
        backbone: a timm model for all rows.
        backbone_weights: weights the pretrained rows start from.
    """
    from glimpsenet.reproduction.rows import ROWS, Setting

    at_least(1, seeds=seeds, max_steps=1 if max_steps is None else max_steps)
    setting = Setting(data, max_steps, image_size, backbone, backbone_weights)
    from glimpsenet.provenance import typed_command
    from glimpsenet.reproduction.report import write_report
    from glimpsenet.reproduction.run import train_rows

    found = train_rows(rows or ROWS, out, setting, seeds=seeds, records=records, device=device, tell=say)
    report = write_report(found, out, setting, command=typed_command())
    print_table(
        f"accuracy after the last glimpse, {report['data']}",
        ["row", "seeds", "here", "first glimpse", "random", "mean s"],
        [
            [
                row,
                str(values["seeds"]),
                *(f"{values[name]:.3f}" for name in ("accuracy", "first_glimpse", "random")),
                f"{values['window_mean'][0]:.2f}",
            ]
            for row, values in report["rows"].items()
        ],
    )
    say(f"the report is in {out / 'report.md'} and {out / 'report.html'}")
