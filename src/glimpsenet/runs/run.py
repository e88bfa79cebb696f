"""Run folders: what a training run leaves, and how it is read back.

config.json  checkpoints/{best,last}.ckpt  model.safetensors  metrics.csv  localization.csv  summary.json  tensorboard/
"""

import copy
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from huggingface_hub import ModelCard, ModelHubMixin
from torch import Tensor

from glimpsenet.config import VERSION, Config, from_dict, to_dict
from glimpsenet.errors import DamagedError, MissingError, OccupiedError, UserError, did_you_mean
from glimpsenet.files import write_aside, write_json
from glimpsenet.models.build import build_model
from glimpsenet.models.glimpsenet import GlimpseNet
from glimpsenet.runs import card, hub

CONFIG, WEIGHTS, METRICS, SUMMARY, CHECKPOINTS = (
    "config.json",
    "model.safetensors",
    "metrics.csv",
    "summary.json",
    "checkpoints",
)

LOCALIZATION = "localization.csv"
EXTRAS = (SUMMARY, METRICS, LOCALIZATION, card.CARD)
"""What a model is shared with, beside its settings and weights."""
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
class Run(Description, ModelHubMixin):
    """A trained model with what it is; to be shared as every model on the Hugging Face Hub.

    Example:
        >>> run = glimpsenet.load_run("runs/digits")
        >>> folder = run.save_pretrained("shared")  # what run.push_to_hub("user/name") uploads
        >>> run = glimpsenet.Run.from_pretrained("shared")  # or "user/name"
        >>> run.classes[:3]
        ['0', '1', '2']
    """

    model: GlimpseNet
    folder: Path

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.model.classifier.weight.device

    # Not None, or the mixin would write a configuration of its own into every new run, which is frozen.
    _hub_mixin_config = {}  # noqa: RUF012

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | Path, *, device: str | torch.device = "cpu", **options: Any
    ) -> "Run":
        """A run from a folder or the Hub; settings and safetensors are all that is downloaded, and no code is run.

        Args:
            pretrained_model_name_or_path: a run folder, or USER/NAME on the Hub.
            device: of the model.
            **options: of ``huggingface_hub.snapshot_download``: revision, token, cache_dir, local_files_only...

        Raises:
            UserError: if there is no such folder or repository, it cannot be reached, or is no run.
        """
        name = pretrained_model_name_or_path
        if Path(name).is_dir():
            return load_run(name, device)
        folder = hub.download(str(name), (CONFIG, WEIGHTS, *EXTRAS), **options)
        try:
            return load_run(folder, device)
        except UserError as error:
            raise UserError(f"{name} on the Hub is no model of glimpsenet: {error}") from error

    def save_pretrained(self, save_directory: str | Path, **options: Any) -> str | None:
        """Write a run folder that can be shared: settings, weights, figures, and a model card in README.md.

        Paths are cut to their last part, and names of unreadable images left out. A README.md in the run's folder goes
        before a new card.

        Args:
            save_directory: where; not the run's own folder.
            **options: of ``huggingface_hub.ModelHubMixin.save_pretrained``.

        Raises:
            UserError: for the run's own folder.
        """
        if Path(save_directory).resolve() == self.folder.resolve():
            raise UserError(f"{save_directory} is the run's own folder: save what is shared to another")
        return super().save_pretrained(save_directory, **options)

    def push_to_hub(self, repo_id: str, *, token: str | None = None, **options: Any) -> str:
        """Upload what :meth:`save_pretrained` writes, in one commit; makes the repository if there is none.

        Args:
            repo_id: USER/NAME.
            token: to log in with, if not the one of ``hf auth login`` or HF_TOKEN.
            **options: of ``huggingface_hub.ModelHubMixin.push_to_hub``: private, branch, commit_message...

        Returns:
            The address of the commit.

        Raises:
            UserError: without a token, or if the Hub refuses or cannot be reached.
        """
        hub.check_name(repo_id)
        hub.require_login(token)
        with hub.one_line_errors(repo_id):
            return super().push_to_hub(repo_id, token=token, model_card_kwargs={"repo_id": repo_id}, **options)

    def generate_model_card(self, repo_id: str | None = None) -> ModelCard:
        """The model card that is shared with the run."""
        return card.make_card(
            repo_id or f"USER/{self.folder.resolve().name}",
            card.without_folders(self.config),
            self.classes,
            self.channels,
            card.read_summary(self.folder / SUMMARY),
            sum(parameter.numel() for parameter in self.model.parameters()),
        )

    def _save_pretrained(self, save_directory: Path) -> None:
        write_description(save_directory, Description(card.without_folders(self.config), self.classes, self.channels))
        save_weights(self.model, save_directory)
        if summary := card.read_summary(self.folder / SUMMARY):
            write_json(save_directory / SUMMARY, summary)
        for name in (METRICS, LOCALIZATION, card.CARD):
            if (self.folder / name).is_file():
                shutil.copyfile(self.folder / name, save_directory / name)


def write_description(folder: Path, description: Description) -> None:
    """Write ``config.json``."""
    values = {
        "version": VERSION,
        "config": to_dict(description.config),
        "classes": description.classes,
        "channels": description.channels,
    }
    write_json(folder / CONFIG, values)


class OutdatedRunError(UserError):
    """A run folder was written by a version of this library with another format."""


def read_description(folder: Path) -> Description:
    """Read ``config.json``.

    Raises:
        UserError: if the folder is no run folder, or the file is damaged.
    """
    if not folder.is_dir():
        raise MissingError(f"no such run folder: {folder}; {_runs_beside(folder)}")
    file = folder / CONFIG
    if not file.is_file():
        raise MissingError(f"{folder} is no run folder: it has no {CONFIG} (glimpsenet train makes one)")
    try:
        values = json.loads(file.read_text())
        if not isinstance(values, dict):
            raise TypeError("it holds no JSON object")
        if (version := values.get("version", 1)) != VERSION:
            raise OutdatedRunError(
                f"{file} has format version {version}, but this version of glimpsenet reads {VERSION}: train it again"
            )
        classes, channels = values["classes"], values["channels"]
        if not (isinstance(classes, list) and classes and all(isinstance(name, str) for name in classes)):
            raise TypeError("'classes' is not a list of names")
        if channels not in (1, 3):
            raise ValueError(f"'channels' is {channels!r}, not 1 or 3")
        return Description(from_dict(values["config"]), classes, channels)
    except OutdatedRunError:
        raise
    except (UserError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise DamagedError(f"{file} is damaged: {error}") from error


def _runs_beside(folder: Path) -> str:
    """The way to a run folder that is called otherwise."""
    beside = folder.parent if folder.parent.is_dir() else Path("runs")
    found = sorted(str(file.parent) for top in {beside, Path("runs")} for file in top.glob(f"*/{CONFIG}"))
    others = f"there are {', '.join(found[:5])}" if found else "glimpsenet train makes one"
    return did_you_mean(str(folder), found, others)


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


def pull(repo_id: str, folder: Path | None = None, *, revision: str | None = None) -> Path:
    """Make a run folder of a shared model; runs no code of it.

    Args:
        repo_id: USER/NAME.
        folder: a new one; runs/NAME if None.
        revision: branch, tag or commit; the newest if None.

    Raises:
        UserError: if the folder exists, or the model cannot be had.
    """
    name = hub.check_name(repo_id)
    folder = Path("runs") / name if folder is None else folder
    if folder.exists():
        raise OccupiedError(f"{folder} already exists; name another folder")
    aside = folder.with_name(f".{folder.name}.part")
    Run.from_pretrained(repo_id, revision=revision).save_pretrained(aside)
    aside.rename(folder)
    return folder


def load_run(folder: str | Path, device: str | torch.device = "cpu", *, model: GlimpseNet | None = None) -> Run:
    """A run's best model, in evaluation mode; of a run that is not finished, that of its best checkpoint so far.

    Args:
        folder: the run folder.
        device: of the model.
        model: takes the weights, if the run was trained with a custom model: one made in the same way.

    Raises:
        UserError: if the folder is no run folder, has no weights yet, or holds those of another architecture.

    Example:
        >>> run = glimpsenet.load_run("runs/digits")
        >>> run.config.model.image_size, run.classes[-1]
        (80, '9')
    """
    folder = Path(folder)
    description = read_description(folder)
    model = description.build(initial_weights=False) if model is None else model
    file = next(
        (f for f in (folder / WEIGHTS, *(folder / CHECKPOINTS / f"{n}.ckpt" for n in ("best", "last"))) if f.exists()),
        None,
    )
    if file is None:
        raise MissingError(f"{folder} has no weights: no checkpoint saved yet")
    try:
        if file.suffix == ".safetensors":
            safetensors.torch.load_model(model, file)
        else:
            state = torch.load(file, map_location="cpu", weights_only=True)["state_dict"]
            model.load_state_dict(model_weights(state))
    except Exception as error:  # readers raise kinds of their own for damage and for mismatch
        reason = " ".join(str(error).split())[:300]
        raise DamagedError(f"{file} does not hold the model of {folder / CONFIG}: {reason}") from error
    model = arrange_for_speed(model.eval())
    return Run(description.config, description.classes, description.channels, model.to(device), folder)


def load(folder: str | Path, device: str | torch.device = "cpu") -> GlimpseNet:
    """The model of a run folder, in evaluation mode; see :func:`~glimpsenet.runs.run.load_run`.

    Args:
        folder: the run folder.
        device: of the model.

    Raises:
        UserError: as :func:`~glimpsenet.runs.run.load_run` does.

    Example:
        >>> glimpsenet.load("runs/digits").num_classes
        10
    """
    return load_run(folder, device).model
