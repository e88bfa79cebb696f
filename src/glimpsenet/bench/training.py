"""One optimiser step, computed in several ways: what training costs a batch.

    reference   MGNet's recipe as published: float32, eager, channels first
    eager       the model's own recipe, as the reference is computed
    fast        channels last, the optimiser in one kernel, autocast to the precision asked for
    compiled    the same, with the backbone through torch.compile

A step is forward, loss (the localization objective's too), backward and optimiser, on one batch that stays the same.
"""

import copy
from collections.abc import Callable, Sequence

import torch

from glimpsenet.bench.subjects import Mode, Subject, build_subject
from glimpsenet.config import Config, ModelConfig
from glimpsenet.models.glimpsenet import GlimpseNet
from glimpsenet.training.losses import glimpse_loss
from glimpsenet.training.objectives import create_objective

Step = Callable[[], object]
LEARNING_RATE = 1e-3
"""Small: a batch that is learned by heart must not end in infinity."""


def training_steps(subject: Subject, modes: Sequence[Mode], dtype: torch.dtype, batch: int) -> dict[str, Step]:
    """The reference and every mode of ``modes``, by name."""
    steps = {"reference": training_step(reference_of(subject), "eager", torch.float32, batch)}
    return steps | {
        mode: training_step(subject, mode, dtype if mode != "eager" else torch.float32, batch) for mode in modes
    }


def reference_of(subject: Subject) -> Subject:
    """MGNet with the same backbone and sizes."""
    own = subject.config.model
    names = ("backbone", "num_glimpses", "image_size", "glimpse_size", "scale_range")
    model = ModelConfig(**{name: getattr(own, name) for name in names})
    return build_subject(Config(model=model), subject.channels, subject.device)


def training_step(subject: Subject, mode: Mode, dtype: torch.dtype, batch: int) -> Step:
    """A step to be called again and again; returns its loss, as a number."""
    settings, device = subject.config.training, subject.device
    model: GlimpseNet = copy.deepcopy(subject.model).train()
    layout = torch.contiguous_format if mode == "eager" else torch.channels_last
    model = model.to(memory_format=layout)  # pyright: ignore[reportCallIssue]
    objective = create_objective(settings, subject.config.model, model).to(device)
    if mode == "compiled":
        model.backbone.compile()
    parameters = [*model.parameters(), *objective.parameters()]
    optimizer = torch.optim.SGD(
        parameters, LEARNING_RATE, momentum=0.9, weight_decay=settings.weight_decay, fused=mode != "eager"
    )
    images = model.normalization(subject.images(batch))
    labels = torch.arange(batch, device=device) % model.num_classes
    size = float(subject.config.model.image_size)
    boxes = torch.tensor([[0.25 * size, 0.25 * size, 0.5 * size, 0.5 * size]], device=device).expand(batch, 4)

    def step() -> float:
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            output = model(images, policy=objective.behaviour(model, 0.0, labels, boxes))
            loss = glimpse_loss(output, labels, settings.auxiliary_weight).total
            loss = loss + settings.objective_weight * objective(model, output, labels, boxes)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    return step
