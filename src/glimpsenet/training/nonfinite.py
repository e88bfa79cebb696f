"""Which tensor went wrong first: the name that a run that stops at a NaN tells.

In the order in which a glimpse computes: images, weights, then the windows, features and answers of each glimpse. The
first that holds a NaN or an infinity is what to look at; all after it do too.
"""

from collections.abc import Iterator

from torch import Tensor

from glimpsenet.models.glimpsenet import GlimpseNet, GlimpseOutput


def name_nonfinite(model: GlimpseNet, images: Tensor, output: GlimpseOutput) -> str:
    """What a glimpse with a loss that is not finite should tell, "features of glimpse 2" say."""
    for name, tensor in _in_order(model, images, output):
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            return name
    return "the loss itself"


def _in_order(model: GlimpseNet, images: Tensor, output: GlimpseOutput) -> Iterator[tuple[str, Tensor]]:
    yield "images", images
    yield from ((f"weight {name}", weight) for name, weight in model.named_parameters())
    yield from ((f"statistic {name}", statistic) for name, statistic in model.named_buffers())
    for glimpse in range(output.logits.shape[1]):
        yield f"window {glimpse + 1}", output.windows[:, glimpse]
        yield f"features of glimpse {glimpse + 1}", output.features[:, glimpse]
        yield f"logits after glimpse {glimpse + 1}", output.logits[:, glimpse]
    if output.auxiliary_logits is not None:
        yield "auxiliary logits", output.auxiliary_logits
