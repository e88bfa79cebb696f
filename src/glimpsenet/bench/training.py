"""One optimiser step, computed in several ways: the cost of training per batch.

    reference   MGNet's recipe as published: float32, eager, channels first
    eager       the model's own recipe, computed the same way
    fast        channels last, fused optimiser, autocast to the given precision
    compiled    fast, with the backbone through torch.compile

A step is forward, loss (including the policy objective's), backward and optimiser.
"""

import copy
import functools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from glimpsenet.bench.subjects import Mode, Subject, build_subject
from glimpsenet.config import Config
from glimpsenet.losses import glimpse_loss
from glimpsenet.models.config import ModelConfig
from glimpsenet.models.glimpsenet import GlimpseNet

Step = Callable[[Tensor, Tensor, Tensor], float]
"""Raw images, labels, boxes -> the loss; updates the weights."""


def training_steps(
    subject: Subject, modes: Sequence[Mode], dtype: torch.dtype, batch: int
) -> dict[str, Callable[[], float]]:
    """The reference and each of ``modes``, by name, each on a fixed batch."""
    size, device = float(subject.config.model.image_size), subject.device
    labels = torch.arange(batch, device=device) % subject.model.num_classes
    boxes = torch.tensor([[0.25, 0.25, 0.5, 0.5]], device=device).expand(batch, 4) * size
    steps = {"reference": training_step(reference_of(subject), "eager", torch.float32)}
    steps |= {mode: training_step(subject, mode, torch.float32 if mode == "eager" else dtype) for mode in modes}
    return {name: functools.partial(step, subject.images(batch), labels, boxes) for name, step in steps.items()}


def reference_of(subject: Subject) -> Subject:
    """MGNet with the same backbone, sizes and number of classes, untrained."""
    own = subject.config.model
    names = ("backbone", "num_glimpses", "image_size", "glimpse_size", "scale_range")
    config = Config(model=ModelConfig(**{name: getattr(own, name) for name in names}))
    return build_subject(config, subject.channels, subject.device, subject.model.num_classes)


def training_step(subject: Subject, mode: Mode, dtype: torch.dtype, learning_rate: float = 1e-3) -> Step:
    """A training step of a copy of the model, to be called repeatedly."""
    settings, device = subject.config.training, subject.device
    model: GlimpseNet = copy.deepcopy(subject.model).train()
    layout = torch.contiguous_format if mode == "eager" else torch.channels_last
    model = model.to(memory_format=layout)  # pyright: ignore[reportCallIssue]
    objective = settings.objective.build(model, subject.config.model.scale_range).to(device)
    if mode == "compiled":
        model.backbone.compile()
    parameters = [*model.parameters(), *objective.parameters()]
    optimizer = torch.optim.SGD(
        parameters, learning_rate, momentum=0.9, weight_decay=settings.weight_decay, fused=mode != "eager"
    )

    def step(images: Tensor, labels: Tensor, boxes: Tensor) -> float:
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            behaviour = objective.behaviour(model, 0.0, labels, boxes)
            output = model(model.normalization(images), policy=behaviour)
            loss = glimpse_loss(output, labels, settings.auxiliary_weight).total
            loss = loss + objective.weight * objective(model, output, labels, boxes)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    return step
