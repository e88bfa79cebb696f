"""A model at a glance: its parts in the order of the loop, and what each more glimpse costs.

A tree of layers, which general tools print, hides the loop: the backbone appears once and runs T times. So this is a
table of the six parts, with the FLOPs of all T turns, and one of the turns.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from glimpsenet.evaluation.efficiency import measure_cost
from glimpsenet.models.glimpsenet import GlimpseNet


@dataclass(frozen=True)
class Part:
    """One part of the loop."""

    name: str
    """The attribute of the model."""
    kind: str
    """Its class; the architecture, for the backbone."""
    shape: tuple[int, ...]
    """Of what it gives for one image, in one turn."""
    parameters: int
    flops: int
    """Of all turns, for one image; see ``efficiency.py`` for what is counted."""


@dataclass(frozen=True)
class Summary:
    """What :func:`~glimpsenet.evaluation.summary.summary` found; prints as two tables.

    Example:
        >>> found = glimpsenet.summary(glimpsenet.load("runs/digits"), image_size=80)
        >>> [part.name for part in found.parts][:3]
        ['policy', 'generator', 'backbone']
    """

    parts: list[Part]
    cost: dict[str, Any] = field(repr=False)
    """As ``measure_cost`` has it."""
    image_size: int

    def __str__(self) -> str:
        share = self.cost["share_of_full_pass"]  # None for a backbone that takes glimpses only
        counts = self.cost["flops"]
        parts = [["part", "", "output", "parameters", f"FLOPs, {len(counts)} glimpses"]]
        for part in self.parts:
            shape = " x ".join(str(side) for side in part.shape)
            parts.append([part.name, part.kind, shape, f"{part.parameters:,}", f"{part.flops:,}"])
        parts.append(["all", "", "", f"{self.cost['parameters']:,}", f"{counts[-1]:,}"])
        turns = [["after glimpse", "FLOPs"], *([str(glimpse), f"{n:,}"] for glimpse, n in enumerate(counts, 1))]
        if share:
            turns[0].append(f"of one pass over {self.image_size} x {self.image_size} px")
            for row, value in zip(turns[1:], share, strict=True):
                row.append(f"{value:.0%}")
        return f"{_table(parts, left=3)}\n\n{_table(turns, left=1)}"


def summary(model: GlimpseNet, image_size: int = 224) -> Summary:
    """The parts of a model with output shapes, parameters and FLOPs, and the cost after each glimpse.

    Args:
        model: on any device; it is run, and stays in the mode it was in.
        image_size: side of its images in pixels.

    Example:
        >>> model = glimpsenet.create_model("resnet18", num_classes=100)
        >>> print(glimpsenet.summary(model))  # doctest: +ELLIPSIS
        part ...
    """
    channels = len(model.normalization.mean)
    image = torch.zeros(1, channels, image_size, image_size, device=model.classifier.weight.device)
    training = model.training
    model.eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(image)
    model.train(training)
    flops = {name: sum(counts.values()) for name, counts in counter.get_flop_counts().items()}
    side, width, classes = model.generator.glimpse_size, model.clue.width, (model.num_classes,)
    shapes = {
        "policy": (3,),
        "generator": (channels, side, side),
        "backbone": (model.backbone.channels,),
        "clue": (width,),
        "fusion": (width,),
        "classifier": classes,
        "auxiliary_classifier": classes,
    }
    parts = [
        Part(
            name=name,
            kind=model.backbone.name if name == "backbone" else type(part).__name__,
            shape=shape,
            parameters=sum(parameter.numel() for parameter in part.parameters()),
            flops=flops.get(f"{type(model).__name__}.{name}", 0),
        )
        for name, shape in shapes.items()
        if isinstance(part := getattr(model, name), nn.Module)
    ]
    return Summary(parts, measure_cost(model, image_size, channels), image_size)


def _table(rows: list[list[str]], left: int) -> str:
    """Aligned columns; the first ``left`` of them to the left."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(
            cell.ljust(width) if column < left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]])
