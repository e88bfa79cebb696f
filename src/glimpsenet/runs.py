"""Run folders: what a training run leaves, and how it is read back.

config.json  checkpoints/{best,last}.ckpt  model.safetensors  metrics.csv  localization.csv  summary.json  tensorboard/
"""

import copy
import json
from dataclasses import dataclass
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from glimpsenet.config import Config, from_dict, to_dict
from glimpsenet.errors import UserError
from glimpsenet.files import write_aside, write_json
from glimpsenet.models.build import build_model
from glimpsenet.models.glimpsenet import GlimpseNet

CONFIG, WEIGHTS, METRICS, SUMMARY, CHECKPOINTS = (
    "config.json",
    "model.safetensors",
    "metrics.csv",
    "summary.json",
    "checkpoints",
)

LOCALIZATION = "localization.csv"
LOCALIZATION_STATISTICS = ("min", "max", "mean", "std")
LOCALIZATION_COLUMNS: tuple[str, ...] = ("step", "kind", "name", *LOCALIZATION_STATISTICS)


@dataclass(frozen=True)
class Description:
    """What a run is, as its ``config.json`` says."""

    config: Config
    classes: list[str]
    channels: int

    def build(self, initial_weights: bool = True) -> GlimpseNet:
        """A new model for this run."""
        return build_model(
            self.config.model,
            num_classes=len(self.classes),
            in_channels=self.channels,
            initial_weights=initial_weights,
        )


@dataclass(frozen=True)
class Run(Description):
    """A trained model with what it is."""

    model: GlimpseNet
    folder: Path


def write_description(folder: Path, description: Description) -> None:
    """Write ``config.json``."""
    values = {
        "config": to_dict(description.config),
        "classes": description.classes,
        "channels": description.channels,
    }
    write_json(folder / CONFIG, values)


def read_description(folder: Path) -> Description:
    """Read ``config.json``.

    Raises:
        UserError: if the folder is no run folder, or the file is damaged.
    """
    if not folder.is_dir():
        raise UserError(f"no such run folder: {folder}")
    file = folder / CONFIG
    if not file.is_file():
        raise UserError(f"{folder} is no run folder: it has no {CONFIG} (glimpsenet train makes one)")
    try:
        values = json.loads(file.read_text())
        classes, channels = values["classes"], values["channels"]
        if not (isinstance(classes, list) and classes and all(isinstance(name, str) for name in classes)):
            raise TypeError("'classes' is not a list of names")
        if channels not in (1, 3):
            raise ValueError(f"'channels' is {channels!r}, not 1 or 3")
        return Description(from_dict(values["config"]), classes, channels)
    except (UserError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise UserError(f"{file} is damaged: {error}") from error


def save_weights(model: GlimpseNet, folder: Path) -> None:
    """Write ``model.safetensors``."""
    plain = copy.deepcopy(model).to(memory_format=torch.contiguous_format)  # pyright: ignore[reportCallIssue]
    with write_aside(folder / WEIGHTS) as aside:
        safetensors.torch.save_model(plain, str(aside))


def model_weights(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The model's part of a checkpoint's ``state_dict``; the rest served its training."""
    prefix = "model."
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


def arrange_for_speed(model: GlimpseNet) -> GlimpseNet:
    """Channels last is how convolutions run fastest, on CPUs too (1.5 times as fast for EfficientNet-Lite0)."""
    return model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]


def load_run(folder: str | Path, device: str | torch.device = "cpu") -> Run:
    """A run's best model, in evaluation mode; of a run that is not finished, that of its best checkpoint so far.

    Raises:
        UserError: if the folder is no run folder, has no weights yet, or holds those of another architecture.
    """
    folder = Path(folder)
    description = read_description(folder)
    model = description.build(initial_weights=False)
    file = next(
        (f for f in (folder / WEIGHTS, *(folder / CHECKPOINTS / f"{n}.ckpt" for n in ("best", "last"))) if f.exists()),
        None,
    )
    if file is None:
        raise UserError(f"{folder} has no weights yet: training has not come to its first validation")
    try:
        if file.suffix == ".safetensors":
            safetensors.torch.load_model(model, file)
        else:
            state = torch.load(file, map_location="cpu", weights_only=True)["state_dict"]
            model.load_state_dict(model_weights(state))
    except Exception as error:  # readers raise kinds of their own for damage and for mismatch
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"{file} does not hold the model of {folder / CONFIG}: {reason}") from error
    model = arrange_for_speed(model.eval())
    return Run(description.config, description.classes, description.channels, model.to(device), folder)


def load(folder: str | Path, device: str | torch.device = "cpu") -> GlimpseNet:
    """The model of a run folder, in evaluation mode; see :func:`~glimpsenet.runs.load_run`."""
    return load_run(folder, device).model
