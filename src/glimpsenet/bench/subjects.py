"""What to time: a glimpse model and the plain backbone it must beat, each in three modes.

    eager       unchanged
    fast        `accelerate`: batch normalisation folded into convolutions, channels last, weights packed (CPU)
    compiled    folded, channels last, through torch.compile

Both turn raw images into logits, normalisation included.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from glimpsenet.bench.config import Mode, SubjectSettings
from glimpsenet.config import Config
from glimpsenet.errors import UserError
from glimpsenet.inference.early_exit import Predictor
from glimpsenet.inference.fast import accelerate, fold_batch_norms, inductor_options
from glimpsenet.inference.packing import pack_convolutions
from glimpsenet.models.backbone import backbone_normalization, create_backbone_net
from glimpsenet.models.build import build_model
from glimpsenet.models.config import ModelConfig
from glimpsenet.models.glimpsenet import GlimpseNet
from glimpsenet.runs import load_run

NUM_CLASSES = 100
"""Classes of models built for measuring; ImageNet100's number."""

Classify = Callable[[Tensor], Tensor]
"""Raw images [batch, channel, size, size], 0..1 -> logits [batch, class]."""


@dataclass(frozen=True)
class Subject:
    """A model to measure, in evaluation mode on its device."""

    name: str
    config: Config
    channels: int
    model: GlimpseNet

    @property
    def device(self) -> torch.device:
        """The model's device."""
        return self.model.classifier.weight.device

    def images(self, batch: int) -> Tensor:
        """Random raw images, the same on every call."""
        size = self.config.model.image_size
        generator = torch.Generator().manual_seed(0)
        return torch.rand(batch, self.channels, size, size, generator=generator).to(self.device)


def open_subject(target: str, device: torch.device, settings: SubjectSettings | None = None) -> Subject:
    """Open a run folder, or build MGNet's untrained model with the named backbone.

    Args:
        target: run folder, or name of a backbone.
        device: device to run on.
        settings: sizes for a backbone; MGNet's by default.

    Raises:
        UserError: if there is no such run or backbone, or if sizes are given for a run.
    """
    chosen = {} if settings is None else {name: v for name, v in vars(settings).items() if v is not None}
    if Path(target).is_dir():
        if chosen:
            raise UserError(f"{target} is a run with a fixed {next(iter(chosen))}; name a backbone to choose it")
        run = load_run(target, device)
        return Subject(target, run.config, run.channels, run.model)
    return build_subject(Config(model=ModelConfig(backbone=target, **chosen)), 3, device)


def build_subject(config: Config, channels: int, device: torch.device, num_classes: int = NUM_CLASSES) -> Subject:
    """Build a model with untrained weights, on which time does not depend."""
    torch.manual_seed(config.seed)
    model = build_model(config.model, num_classes=num_classes, in_channels=channels, initial_weights=False)
    return Subject(config.model.backbone, config, channels, model.eval().to(device))


def glimpsing(subject: Subject, mode: Mode) -> Classify:
    """All T glimpses."""
    if mode == "eager":
        # The default layout of new models; loaded runs have channels last.
        model = copy.deepcopy(subject.model).to(memory_format=torch.contiguous_format)  # pyright: ignore[reportCallIssue]
        return lambda images: model(model.normalization(images)).logits[:, -1]
    predictor = Predictor(accelerate(subject.model, compiled=mode == "compiled"))
    return lambda images: predictor(images).logits


def plain(subject: Subject, mode: Mode) -> nn.Module:
    """The same backbone, one pass over the whole image."""
    config = subject.config.model
    settings: dict[str, Any] = {"in_channels": subject.channels, "num_classes": subject.model.num_classes}
    net = create_backbone_net(config.backbone, image_size=config.image_size, **settings)
    model = nn.Sequential(backbone_normalization(net, subject.channels), net).eval().to(subject.device)
    model = model.requires_grad_(False)
    if mode != "eager":
        fold_batch_norms(net)
        model = model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    if mode == "fast":
        pack_convolutions(net)
    if mode == "compiled":
        model.compile(dynamic=True, options=inductor_options(subject.device))
    return model
