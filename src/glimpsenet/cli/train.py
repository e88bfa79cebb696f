"""``glimpsenet train`` and ``reproduce``: recipes, and the rows of Table 1."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from glimpsenet.cli.arguments import FLAT, Device, Records
from glimpsenet.cli.output import say
from glimpsenet.config import Config
from glimpsenet.data.config import DataConfig
from glimpsenet.kinds import at_least
from glimpsenet.models.config import ModelConfig
from glimpsenet.recipes import RECIPES
from glimpsenet.reproduction.rows import ROWS, Setting
from glimpsenet.training.config import TrainingConfig


@dataclass(frozen=True)
class TrainingRun:
    """A recipe and where to run it."""

    model: Annotated[ModelConfig, FLAT]
    data: Annotated[DataConfig, FLAT]
    training: Annotated[TrainingConfig, FLAT]
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


def command_of(name: str, recipe: Callable[[], Config]) -> Callable[..., None]:
    """``glimpsenet train NAME``: its flags are the recipe's settings, and its help the recipe's docstring."""

    def command(*, run: Annotated[TrainingRun, FLAT] = TrainingRun.of(name, recipe())) -> None:
        train(run)

    command.__doc__ = recipe.__doc__
    return command


def train(run: TrainingRun) -> None:
    """Train a recipe; leaves a run folder with weights, metrics and logs."""
    from glimpsenet.evaluation.tables import training_report
    from glimpsenet.training.fit import fit
    from glimpsenet.training.run_folder import finished_summary

    complete = not run.overwrite and finished_summary(run.config, run.out) is not None
    names = ("resume", "overwrite", "device", "devices", "num_nodes")
    summary = fit(run.config, run.out, **{name: getattr(run, name) for name in names})
    if not summary:  # not the first process
        return
    complete_note = [f"{run.out} already holds this run, complete: nothing was trained"] if complete else []
    say(*complete_note, *training_report(summary), f"the run is in {run.out}")


TRAIN = {name: command_of(name, recipe) for name, recipe in RECIPES.items()}


def reproduce(
    *,
    rows: tuple[str, ...] = (),
    setting: Annotated[Setting, FLAT] = Setting(),
    out: Path = Path("runs/reproduction"),
    records: Records = None,
    seeds: int = 1,
    device: Device = "auto",
) -> None:
    """Train the rows of the report's Table 1 and report them beside its numbers; continues where it stopped.

    Args:
        rows: names of rows; all eight, one of ours and the plain backbone if none is given.
        setting: what they are trained on.
        out: folder of the runs and the report.
        seeds: how often to train each row.
    """
    at_least(1, seeds=seeds)
    from glimpsenet.provenance import typed_command
    from glimpsenet.reproduction.report import summary_table, write_report
    from glimpsenet.reproduction.run import train_rows

    found = train_rows(rows or ROWS, out, setting, seeds=seeds, records=records, device=device, tell=say)
    say(summary_table(write_report(found, out, setting, command=typed_command())))
    say(f"the report is in {out / 'report.md'} and {out / 'report.html'}")
