"""What looking costs: FLOPs after each glimpse, against one pass of the same backbone over the full image.

FLOPs are counted by torch's own counter (a multiplication and an addition are two); it counts convolutions and
matrix products, which leaves out sampling, pooling and normalisation, some percent in both.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from glimpsenet.models.glimpsenet import GlimpseNet


def flops_of(call: Callable[[], object]) -> int:
    """Of one eager call, whatever it computes."""
    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()


def count_flops(model: GlimpseNet, image_size: int, channels: int) -> list[int]:
    """FLOPs for one image of ``image_size`` pixels after 1, 2, ..., T glimpses."""
    image = torch.zeros(1, channels, image_size, image_size, device=model.classifier.weight.device)
    with torch.no_grad():
        return [flops_of(lambda t=t: model(image, num_glimpses=t)) for t in range(1, model.num_glimpses + 1)]


def count_plain_flops(model: GlimpseNet, image_size: int, channels: int) -> int | None:
    """FLOPs of the backbone over the full image; None for one that takes glimpses only (vision transformers)."""
    image = torch.zeros(1, channels, image_size, image_size, device=model.classifier.weight.device)
    try:
        with torch.no_grad():
            return flops_of(lambda: model.backbone(image))
    except AssertionError:  # how timm's transformers refuse another input size
        return None


def measure_cost(model: GlimpseNet, image_size: int, channels: int) -> dict[str, Any]:
    """Parameters, FLOPs per number of glimpses, and their share of one full pass (None if there is none)."""
    training = model.training
    model.eval()
    flops = count_flops(model, image_size, channels)
    plain = count_plain_flops(model, image_size, channels)
    model.train(training)
    parameters = list(model.parameters())
    return {
        "parameters": sum(p.numel() for p in parameters),
        "trainable_parameters": sum(p.numel() for p in parameters if p.requires_grad),
        "flops": flops,
        "full_pass_flops": plain,
        "share_of_full_pass": [count / plain for count in flops] if plain else None,
    }
